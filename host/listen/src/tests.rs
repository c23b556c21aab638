use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use tidegate_core::limits::NOTIFICATIONS_WAITING_BYTES_MAX;
use tidegate_wire::backend;
use tidegate_wire::frame::HEADER_BYTES;

const NAMES: [&str; 3] = ["a", "b", "c \"d\""];
const CLIENTS: usize = 3;
/// Numbers that servers' processes have; the first is also what the first client was told.
const PROCESSES: [i32; 2] = [1_000, 7];

fn told(client: usize) -> i32 {
    1_000 + client as i32
}

fn id(client: usize) -> ClientId {
    ClientId(client as u64)
}

fn channels(bits: usize) -> Channels {
    let wanted = |(at, _): &(usize, &&str)| bits >> at & 1 == 1;
    NAMES.iter().enumerate().filter(wanted).map(|(_, name)| *name).collect()
}

/// What a server does for the connection that listens: it tells what was committed while it listened, then what it was asked.
#[derive(Default)]
struct Server {
    listens: BTreeSet<String>,
    asked: Option<String>,
    told: VecDeque<Told>,
}

enum Told {
    Ready,
    Notification(i32, &'static str, usize),
}

impl Server {
    fn answer(&mut self) {
        let Some(sql) = self.asked.take() else { return };
        for command in sql.split("\";").filter(|command| !command.is_empty()) {
            let (what, name) = command.split_once(" \"").unwrap();
            let name = name.replace("\"\"", "\"");
            match what {
                "LISTEN" => assert!(self.listens.insert(name), "{sql}"),
                "UNLISTEN" => assert!(self.listens.remove(&name), "{sql}"),
                other => panic!("{other}"),
            }
        }
        self.told.push_back(Told::Ready);
    }
}

/// One client as the shell drives it.
#[derive(Default)]
struct One {
    wants: Channels,
    /// From which notification on it has to hear each channel; set when it has settled.
    since: BTreeMap<&'static str, usize>,
    settling: Option<(Mark, usize)>,
    lent: Option<i32>,
    lost: bool,
    heard: Vec<usize>,
}

#[derive(Default)]
struct World {
    hub: Hub,
    server: Option<Server>,
    clients: [One; CLIENTS],
    /// All that was ever committed: channel, process, and whose it is.
    committed: Vec<(&'static str, i32, Option<usize>)>,
}

impl World {
    fn step(&mut self, op: usize, number: usize) {
        let client = number % CLIENTS;
        match op {
            0 if self.server.is_none() => {
                self.hub.handle_connected();
                self.server = Some(Server::default());
            }
            1 if number.is_multiple_of(7) && self.server.take().is_some() => {
                self.hub.handle_lost();
                for one in &mut self.clients {
                    one.lost = true;
                }
            }
            2 | 3 => self.want(client, number / CLIENTS),
            4 | 5 => self.notify(number),
            6 => self.lend(client, PROCESSES[number / CLIENTS % PROCESSES.len()]),
            7 => self.serve(|server| server.answer()),
            8..=10 => self.deliver(),
            _ => {}
        }
        if let Some(server) = &mut self.server
            && server.asked.is_none()
            && let Some(sql) = self.hub.poll_query()
        {
            server.asked = Some(sql);
        }
        (0..CLIENTS).for_each(|client| self.look(client));
    }

    fn serve(&mut self, what: impl FnOnce(&mut Server)) {
        if let Some(server) = &mut self.server {
            what(server);
        }
    }

    /// The end of a transaction: what it listens to now, and what it did is to be told first.
    fn want(&mut self, client: usize, bits: usize) {
        let one = &mut self.clients[client];
        if one.settling.is_none() {
            one.wants = channels(bits);
            one.since.retain(|name, _| one.wants.contains(name));
            let mark = self.hub.want(id(client), told(client), &one.wants);
            one.settling = Some((mark, self.committed.len()));
        }
    }

    fn lend(&mut self, client: usize, process: i32) {
        let is_free = self.clients.iter().all(|one| one.lent != Some(process));
        let one = &mut self.clients[client];
        if is_free && one.lent.is_none() && one.settling.is_none() && !one.wants.is_empty() {
            one.lent = Some(process);
            self.hub.lend(id(client), process);
        }
    }

    /// A client, or somebody who listens to nothing, commits.
    fn notify(&mut self, number: usize) {
        let (name, process) = (NAMES[number % 3], PROCESSES[number / 3 % PROCESSES.len()]);
        let owner = self.clients.iter().position(|one| one.lent == Some(process));
        if let Some(owner) = owner
            && (!self.hub.is_told_apart(id(owner), process)
                || self.clients[owner].settling.is_some())
        {
            return;
        }
        let at = self.committed.len();
        self.committed.push((name, process, owner));
        self.serve(|server| {
            if server.listens.contains(name) {
                server.told.push_back(Told::Notification(process, name, at));
            }
        });
    }

    fn deliver(&mut self) {
        match self.server.as_mut().and_then(|server| server.told.pop_front()) {
            Some(Told::Ready) => self.hub.handle_ready(),
            Some(Told::Notification(process, name, at)) => {
                self.hub.handle_notification(process, name, at.to_string().as_bytes());
            }
            None => {}
        }
    }

    fn look(&mut self, client: usize) {
        let one = &mut self.clients[client];
        let Some((mark, committed)) = one.settling else { return };
        if !self.hub.is_settled(id(client), mark) {
            return;
        }
        one.settling = None;
        let mut out = Vec::new();
        self.hub.take_notifications(id(client), usize::MAX, &mut out);
        assert!(!self.hub.has_notifications(id(client)));
        let before = one.heard.len();
        let mut rest = &out[..];
        while !rest.is_empty() {
            let length = 1 + u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
            let body = &rest[HEADER_BYTES..length];
            let (process, name, payload) = backend::read_notification_response(body).unwrap();
            let at: usize = std::str::from_utf8(payload).unwrap().parse().unwrap();
            let (channel, sent_by, owner) = self.committed[at];
            assert_eq!(name, channel.as_bytes());
            assert!(one.wants.contains(channel), "{client} does not want {channel}");
            assert!(one.heard.last().is_none_or(|last| *last < at), "twice, or out of order");
            match owner {
                Some(owner) if owner == client => assert_eq!(process, told(client)),
                _ => assert_ne!(process, told(client), "it would take it for its own"),
            }
            assert!(owner.is_some() || process == sent_by || process == 0);
            one.heard.push(at);
            rest = &rest[length..];
        }
        let lost = self.hub.standing(id(client)) != Standing::Whole;
        assert!(!lost || one.lost, "nothing was lost");
        if !lost && !one.lost {
            let heard: BTreeSet<usize> = one.heard[before..].iter().copied().collect();
            for at in 0..committed {
                let must = one.since.get(self.committed[at].0).is_some_and(|since| at >= *since);
                let earlier = one.heard[..before].contains(&at);
                assert!(!must || earlier || heard.contains(&at), "{client} has not heard {at}");
            }
        }
        self.hub.forgive(id(client));
        let is_up = self.server.is_some();
        for name in NAMES.iter().filter(|name| one.wants.contains(name)) {
            one.since.entry(name).or_insert(self.committed.len());
            if one.lost || !is_up {
                one.since.insert(name, usize::MAX);
            }
        }
        if is_up && one.lost && self.hub.is_settled(id(client), mark) {
            one.lost = false;
            // What comes from now on is whole again, once it has settled once more.
            one.since.clear();
        }
        if let Some(process) = one.lent.take() {
            self.hub.give_back(id(client), process);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes in whichever order: what a client has been told it listens to, it hears, all of it, once, in order,
    /// and nothing else; and it can tell its own.
    #[test]
    fn what_is_listened_to_is_heard(steps in prop::collection::vec((0..12_usize, 0..1_000_usize), 1..400)) {
        let mut world = World::default();
        for (op, number) in steps {
            world.step(op, number);
        }
    }
}

fn connected() -> Hub {
    let mut hub = Hub::default();
    hub.handle_connected();
    hub
}

/// Has the connection answer all that it is asked, and says what that was.
fn ask_all(hub: &mut Hub) -> String {
    let mut all = String::new();
    while let Some(sql) = hub.poll_query() {
        all.push_str(&sql);
        hub.handle_ready();
    }
    all
}

#[test]
fn channels_are_listened_to_once_for_all() {
    let mut hub = connected();
    let mark = hub.want(ClientId(1), 1, &channels(0b101));
    hub.want(ClientId(2), 2, &channels(0b001));
    assert!(!hub.is_settled(ClientId(1), mark));
    assert_eq!(ask_all(&mut hub), "LISTEN \"a\";LISTEN \"c \"\"d\"\"\";");
    assert!(hub.is_settled(ClientId(1), mark));
    assert_eq!(hub.take_woken(), [ClientId(1), ClientId(2)]);
    hub.leave(ClientId(1));
    assert_eq!(ask_all(&mut hub), "UNLISTEN \"c \"\"d\"\"\";");
    hub.want(ClientId(2), 2, &Channels::default());
    assert!(!hub.is_wanted());
    assert_eq!(ask_all(&mut hub), "UNLISTEN \"a\";");
    assert_eq!(hub.counts(), (0, 0));
}

#[test]
fn a_loss_is_told_to_those_who_listened_and_all_is_listened_to_again() {
    let mut hub = connected();
    hub.want(ClientId(1), 1, &channels(1));
    ask_all(&mut hub);
    let late = hub.want(ClientId(2), 2, &channels(2));
    hub.handle_lost();
    assert_eq!((hub.losses(), hub.standing(ClientId(2))), (1, Standing::Whole));
    let Standing::Lost(mark) = hub.standing(ClientId(1)) else { panic!("it was not told") };
    assert!(!hub.is_settled(ClientId(2), late), "nobody listens for it");
    assert!(hub.poll_query().is_none());
    hub.handle_connected();
    assert_eq!(ask_all(&mut hub), "LISTEN \"a\";LISTEN \"b\";");
    assert!(hub.is_settled(ClientId(2), late) && hub.is_settled(ClientId(1), mark));
}

#[test]
fn what_waits_for_a_client_is_bounded() {
    let mut hub = connected();
    hub.want(ClientId(1), 1, &channels(1));
    ask_all(&mut hub);
    let payload = vec![b'x'; 8_000];
    for _ in 0..NOTIFICATIONS_WAITING_BYTES_MAX / payload.len() + 1 {
        hub.handle_notification(9, "a", &payload);
    }
    assert_eq!(hub.standing(ClientId(1)), Standing::Overrun);
    assert!(!hub.has_notifications(ClientId(1)));
}
