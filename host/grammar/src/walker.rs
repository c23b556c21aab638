//! The work that is left of a walk, on the heap; and which names are visible where.

use crate::found::{Found, TableId};
use pg_raw_parse::{Node, nodes};
use smallvec::{SmallVec, smallvec};
use tidegate_core::limits::SHAPE_NAMES_MAX;
use tidegate_core::statement::{By, Incomplete, Parsed};

/// What an expression is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its value is used; its columns are compared with nothing.
    Value,
    /// Rows have to pass it; `always`, if none gets by.
    Condition {
        always: bool,
    },
    /// It is part of one side of a comparison with this.
    Compared(By),
    Order,
    Group,
}

/// Where an expression or query stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The query whose FROM it sees first.
    pub level: LevelId,
    /// The WITH queries it sees.
    pub with: Option<WithId>,
    pub role: Role,
}

impl Place {
    pub(crate) fn role(self, role: Role) -> Place {
        Place { role, ..self }
    }

    pub(crate) fn value(self) -> Place {
        self.role(Role::Value)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LevelId(u32);

/// The level outside of every query.
pub(crate) const OUTSIDE: LevelId = LevelId(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WithId(u32);

/// One query's FROM: its ranges are a chain, the last one first.
struct Level {
    outer: LevelId,
    last: Option<u32>,
    ranges: u32,
}

/// A name in FROM.
struct Range<'a> {
    name: &'a str,
    /// `None` for what is no table: a subquery, a function, a WITH query.
    table: Option<TableId>,
    previous: Option<u32>,
}

/// A WITH query's name, and those that were visible before it.
struct With<'a> {
    name: &'a str,
    outer: Option<WithId>,
}

/// What is to be looked at yet.
pub(crate) enum Task<'a> {
    Expression(Node<'a>, Place),
    Query(Node<'a>, Place),
    /// The columns of USING, when all of FROM is known.
    Using(&'a nodes::JoinExpr, Place),
}

/// What most statements need lies on the thread's stack, the rest on the heap.
pub(crate) struct Walker<'a> {
    pub tasks: SmallVec<[Task<'a>; 16]>,
    pub found: Found,
    levels: SmallVec<[Level; 4]>,
    ranges: SmallVec<[Range<'a>; 4]>,
    withs: Vec<With<'a>>,
}

impl<'a> Walker<'a> {
    pub(crate) fn new() -> Self {
        Self {
            tasks: SmallVec::new(),
            found: Found::new(),
            levels: smallvec![Level { outer: OUTSIDE, last: None, ranges: 0 }],
            ranges: SmallVec::new(),
            withs: Vec::new(),
        }
    }

    /// A place outside of every query.
    pub(crate) fn outside(&self) -> Place {
        Place { level: OUTSIDE, with: None, role: Role::Value }
    }

    pub(crate) fn expression(&mut self, node: Node<'a>, place: Place) {
        if !matches!(node, Node::None) {
            self.tasks.push(Task::Expression(node, place));
        }
    }

    /// Pushes nodes so that the first is looked at first.
    pub(crate) fn expressions<I>(&mut self, nodes: I, place: Place)
    where
        I: IntoIterator<IntoIter: DoubleEndedIterator, Item: Into<Node<'a>>>,
    {
        for node in nodes.into_iter().rev() {
            self.tasks.push(Task::Expression(node.into(), place));
        }
    }

    /// Works until nothing is left, or the bounds are reached.
    pub(crate) fn run(&mut self) {
        while let Some(task) = self.tasks.pop() {
            match task {
                Task::Expression(node, place) => self.walk_expression(node, place),
                Task::Query(node, place) => self.walk_query(node, place),
                Task::Using(join, place) => self.walk_using(join, place),
            }
            if self.found.incomplete == Some(Incomplete::TooManyNames) {
                break;
            }
        }
    }

    /// Works, and says what was found.
    pub(crate) fn parsed(mut self) -> Parsed {
        self.run();
        self.found.into_parsed()
    }

    pub(crate) fn new_level(&mut self, outer: LevelId) -> LevelId {
        self.levels.push(Level { outer, last: None, ranges: 0 });
        LevelId(self.levels.len() as u32 - 1)
    }

    pub(crate) fn add_range(&mut self, level: LevelId, name: &'a str, table: Option<TableId>) {
        if self.ranges.len() >= SHAPE_NAMES_MAX {
            self.found.incomplete.get_or_insert(Incomplete::TooManyNames);
            return;
        }
        if let Some(level) = self.levels.get_mut(level.0 as usize) {
            self.ranges.push(Range { name, table, previous: level.last });
            level.last = Some(self.ranges.len() as u32 - 1);
            level.ranges += 1;
        }
    }

    pub(crate) fn add_with(&mut self, name: &'a str, outer: Option<WithId>) -> Option<WithId> {
        if self.withs.len() >= SHAPE_NAMES_MAX {
            self.found.incomplete.get_or_insert(Incomplete::TooManyNames);
            return outer;
        }
        self.withs.push(With { name, outer });
        Some(WithId(self.withs.len() as u32 - 1))
    }

    /// Is this the name of a WITH query that can be seen from here?
    pub(crate) fn is_with(&self, name: &str, mut visible: Option<WithId>) -> bool {
        while let Some(with) = visible.and_then(|id| self.withs.get(id.0 as usize)) {
            if with.name == name {
                return true;
            }
            visible = with.outer;
        }
        false
    }

    /// The table of `name.column`; `None` if the name is no table's.
    pub(crate) fn table_named(&self, name: &str, level: LevelId) -> Option<TableId> {
        let mut at = Some(level);
        while let Some((id, level)) = at.and_then(|id| Some((id, self.levels.get(id.0 as usize)?)))
        {
            if let Some(range) = self.ranges_of(level).find(|range| range.name == name) {
                return range.table;
            }
            at = (id != OUTSIDE).then_some(level.outer);
        }
        None
    }

    /// Whose a column without a table's name is, if the nearest FROM names one thing only.
    pub(crate) fn only_table(&self, level: LevelId) -> Owner {
        let mut at = Some(level);
        while let Some((id, level)) = at.and_then(|id| Some((id, self.levels.get(id.0 as usize)?)))
        {
            match level.ranges {
                0 => at = (id != OUTSIDE).then_some(level.outer),
                1 => {
                    let table = self.ranges_of(level).find_map(|range| range.table);
                    return table.map_or(Owner::NoTable, Owner::Table);
                }
                _ if self.ranges_of(level).all(|range| range.table.is_none()) => break,
                _ => return Owner::Unclear,
            }
        }
        Owner::NoTable
    }

    fn ranges_of(&self, level: &Level) -> impl Iterator<Item = &Range<'a>> {
        let get = |id: u32| self.ranges.get(id as usize);
        std::iter::successors(level.last.and_then(get), move |range| range.previous.and_then(get))
    }
}

/// Whose a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Table(TableId),
    /// One of several tables'.
    Unclear,
    /// A subquery's or a function's.
    NoTable,
}
