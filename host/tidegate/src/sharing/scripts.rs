//! What runs in Redis, each as one step: the only functions that touch what is shared.
//!
//! Under the prefix: `n` which life of the data this is; `m` members, each with its session and the number it has told, and the
//! number `c` that was drawn last; `o:ID` the marks of one member; `t:TAG` a tag's version `v`, and the marks that are on it; `e:KEY`
//! an answer, behind the versions it was read under; `x:NAME` an entry that an application has put, and `z` the names of all of them,
//! with when they end: one that is not in it is not there. Behind a version stands who may rely on it: nobody, one member, or `*`: several,
//! or nobody knows.
//!
//! - Nothing is done in another life than the caller's, and nothing is told by a member whose session is another's by now: a
//!   message that is late does nothing.
//! - What is lost (wiped, evicted, expired) makes answers void: a version that is not there is drawn anew.
//! - `c` is in one hash with what it proves, so that both are lost together.
//! - A version that was drawn anew, other than by the commit that changes it, may be one that somebody relied on before.

/// Whose script this is; the first thing that each says, `gone` when it is not the caller's life or session any more.
const LIFE: &str = "\
local p = KEYS[1]
if redis.call('GET', p .. 'n') ~= ARGV[1] then return {'gone'} end
";
const MEMBER: &str = "\
local id, session = ARGV[2], ARGV[3]
local known = redis.call('HGET', p .. 'm', id)
if not known or string.sub(known, 1, #session) ~= session then return {'gone'} end
";
/// `tagged(tag)`: its key, kept for long enough from now on.
const TAGGED: &str = "\
local function tagged(tag)
  local key = p .. 't:' .. tag
  redis.call('PEXPIRE', key, 86400000)
  return key
end
";
/// `version(tag, fresh)`: its version, and who may rely on it; drawn anew if it is not there. `moved(at)`: are the versions of the cluster and of the database others than those that stand from `at`? Versions, and the
/// tag of all rows.
const MOVED: &str = "\
local function version(tag, fresh)
  local key = p .. 't:' .. tag
  local v = redis.call('HGET', key, 'v')
  if not v then
    v = fresh .. '*'
    redis.call('HSET', key, 'v', v)
    tagged(tag)
  end
  return string.sub(v, 1, 8), string.sub(v, 9)
end
local function moved(at, fresh)
  if ARGV[at] == '' then return false, '', '' end
  local cluster, database = version(ARGV[at + 1], fresh), version(ARGV[at + 2], fresh)
  return cluster ~= ARGV[at + 3] or database ~= ARGV[at + 4], cluster, database
end
";

/// ARGV: run of Redis, random life, member, session, whom it may replace. Answers `held` and by whom; or `ok`, life, number,
/// and the marks that are open.
const HELLO: &str = "\
local p = KEYS[1]
local n = redis.call('GET', p .. 'n')
if not n or string.sub(n, 1, #ARGV[1]) ~= ARGV[1] then
  n = ARGV[1] .. ARGV[2]
  redis.call('SET', p .. 'n', n)
  redis.call('DEL', p .. 'm', p .. 'z')
end
local id, session = ARGV[3], ARGV[4]
local known = redis.call('HGET', p .. 'm', id)
if known and string.sub(known, 1, 16) ~= string.sub(session, 1, 16) and known ~= ARGV[5] then
  return {'held', known}
end
redis.call('HSET', p .. 'm', id, session .. '0')
local answer = {'ok', n, tostring(redis.call('HINCRBY', p .. 'm', 'c', 1))}
for _, part in ipairs(redis.call('HGETALL', p .. 'o:' .. id)) do table.insert(answer, part) end
return answer
";

/// Behind life, member, session: the number that was heard, a random version, the cluster's tag. Takes all answers away, and the
/// marks of earlier sessions; then it is as a beat.
const JOIN: &str = "\
local open = redis.call('HGETALL', p .. 'o:' .. id)
for i = 1, #open, 2 do
  if string.sub(open[i], 1, #session) ~= session then
    local first = true
    for tag in string.gmatch(open[i + 1], '[^%z]+') do
      if not first then redis.call('HDEL', p .. 't:' .. tag, open[i]) end
      first = false
    end
    redis.call('HDEL', p .. 'o:' .. id, open[i])
  end
end
redis.call('HSET', p .. 't:' .. ARGV[6], 'v', ARGV[5] .. '*')
tagged(ARGV[6])
";

/// Behind life, member, session: the number that was heard. Answers `ok`, the number drawn, and all members.
const BEAT: &str = "\
redis.call('HSET', p .. 'm', id, session .. ARGV[4])
local answer = {'ok', tostring(redis.call('HINCRBY', p .. 'm', 'c', 1))}
for _, part in ipairs(redis.call('HGETALL', p .. 'm')) do table.insert(answer, part) end
return answer
";

/// Behind life, member, session: token, process, random version, then five of names (the tag of all rows, or nothing; the tags of
/// cluster and database; their versions as known), tags. Answers `ok`, the versions of cluster and database, and `1` if another member may
/// rely on what is marked.
const MARK: &str = "\
local field, list = session .. ARGV[4], {ARGV[5]}
local others, cluster, database = moved(7, ARGV[6])
local relied = '0'
local function mark(tag)
  local _, who = version(tag, ARGV[6])
  if who ~= '' and who ~= id then relied = '1' end
  redis.call('HSET', p .. 't:' .. tag, field, '1')
  tagged(tag)
  table.insert(list, tag)
end
for i = 12, #ARGV do mark(ARGV[i]) end
if others then mark(ARGV[7]) end
redis.call('HSET', p .. 'o:' .. id, field, table.concat(list, '\\0'))
redis.call('PEXPIRE', p .. 'o:' .. id, 86400000)
return {'ok', cluster, database, relied}
";

/// Behind life, member, session: the number of tokens, random version, five of names, tokens, tags. Answers `ok` and the versions of
/// cluster and database. Nobody relies on what was changed: who did has been waited for.
const END: &str = "\
local others, cluster, database = moved(6, ARGV[5])
local last = 10 + tonumber(ARGV[4])
local function renew(tag)
  if redis.call('EXISTS', p .. 't:' .. tag) == 1 then
    redis.call('HSET', p .. 't:' .. tag, 'v', ARGV[5])
    tagged(tag)
  end
end
for i = last + 1, #ARGV do renew(ARGV[i]) end
if others then renew(ARGV[6]) end
for i = 11, last do
  local field = session .. ARGV[i]
  local list = redis.call('HGET', p .. 'o:' .. id, field)
  if list then
    local first = true
    for tag in string.gmatch(list, '[^%z]+') do
      if not first then redis.call('HDEL', p .. 't:' .. tag, field) end
      first = false
    end
    redis.call('HDEL', p .. 'o:' .. id, field)
  end
end
return {'ok', cluster, database}
";

/// Behind life: a random version, the key of an answer, the versions of the caller's own or nothing, the member if it is to rely on what it
/// is told or nothing, tags. Answers `marked`; or
/// `look`, the tags' versions one behind the other, and the answer that was read under these, if it is there and the caller has
/// not got it, with the milliseconds it has left.
const LOOK: &str = "\
local versions, id = {}, ARGV[5]
for i = 6, #ARGV do
  local key = p .. 't:' .. ARGV[i]
  local v, who = version(ARGV[i], ARGV[2])
  if redis.call('HLEN', key) ~= 1 then return {'marked'} end
  if id ~= '' and who ~= id and who ~= '*' then
    redis.call('HSET', key, 'v', v .. (who == '' and id or '*'))
  end
  versions[#versions + 1] = v
end
versions = table.concat(versions)
if versions ~= ARGV[4] then
  local value = redis.call('GET', p .. 'e:' .. ARGV[3])
  if value and string.sub(value, 1, #versions) == versions then
    return {'look', versions, value, tostring(redis.call('PTTL', p .. 'e:' .. ARGV[3]))}
  end
end
return {'look', versions}
";

/// Behind life: the key of an answer, milliseconds, versions, the answer behind them, tags. Answers `ok`, or `void` when the
/// versions are others.
const PUT: &str = "\
local versions = {}
for i = 6, #ARGV do
  local key = p .. 't:' .. ARGV[i]
  local v = redis.call('HGET', key, 'v')
  if not v or redis.call('HLEN', key) ~= 1 then return {'void'} end
  versions[#versions + 1] = string.sub(v, 1, 8)
end
if table.concat(versions) ~= ARGV[4] then return {'void'} end
redis.call('SET', p .. 'e:' .. ARGV[2], ARGV[5], 'PX', ARGV[3])
return {'ok'}
";

/// `all()`: how many entries there are, those that have ended left out. `drop(name)`: 1 if there was one.
const ENTRIES: &str = "\
local z, clock = p .. 'z', redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function all()
  redis.call('ZREMRANGEBYSCORE', z, '-inf', now)
  return redis.call('ZCARD', z)
end
local function drop(name)
  redis.call('DEL', p .. 'x:' .. name)
  return redis.call('ZREM', z, name)
end
";

/// Behind life, member, session: a name. Answers `none`; or `entry`, value, media type, tags with zeros between, milliseconds left.
const ENTRY_GET: &str = "\
if not redis.call('ZSCORE', z, ARGV[4]) then return {'none'} end
local key = p .. 'x:' .. ARGV[4]
local e = redis.call('HMGET', key, 'v', 'c', 't')
local left = redis.call('PTTL', key)
if not (e[1] and e[2] and e[3]) or left <= 0 then return {'none'} end
return {'entry', e[1], e[2], e[3], tostring(left)}
";

/// Behind life, member, session: a name, milliseconds, how many there may be, value, media type, tags. Answers `ok`, how many there
/// are, and how many made room.
const ENTRY_PUT: &str = "\
local name, ttl = ARGV[4], tonumber(ARGV[5])
drop(name)
local over = all() + 1 - tonumber(ARGV[6])
local gone = over > 0 and redis.call('ZRANGE', z, 0, over - 1) or {}
for _, one in ipairs(gone) do drop(one) end
redis.call('HSET', p .. 'x:' .. name, 'v', ARGV[7], 'c', ARGV[8], 't', ARGV[9])
redis.call('PEXPIRE', p .. 'x:' .. name, ttl)
redis.call('ZADD', z, string.format('%.0f', now + ttl), name)
if redis.call('PTTL', z) < ttl then redis.call('PEXPIRE', z, ttl) end
return {'ok', tostring(all()), tostring(#gone)}
";

/// Behind life, member, session: names. Answers `ok`, how many there are, and how many were taken.
const ENTRY_TAKE: &str = "\
all()
local taken = 0
for i = 4, #ARGV do taken = taken + drop(ARGV[i]) end
return {'ok', tostring(all()), tostring(taken)}
";

/// Behind life, member, session: a tag. Answers as `ENTRY_TAKE`.
const ENTRY_TAKE_TAGGED: &str = "\
all()
local taken = 0
for _, name in ipairs(redis.call('ZRANGE', z, 0, -1)) do
  local own = redis.call('HGET', p .. 'x:' .. name, 't')
  if own then
    for tag in string.gmatch(own, '[^%z]+') do
      if tag == ARGV[4] then
        taken = taken + drop(name)
        break
      end
    end
  end
end
return {'ok', tostring(all()), tostring(taken)}
";

/// Behind life, member, session. Answers as `ENTRY_TAKE`; the values end in their time.
const ENTRY_CLEAR: &str = "\
local taken = all()
redis.call('DEL', z)
return {'ok', '0', tostring(taken)}
";

/// Behind life, member, session. Answers `ok`, how many there are, and their names.
const ENTRY_NAMES: &str = "\
local answer = {'ok', tostring(all())}
for _, name in ipairs(redis.call('ZRANGE', z, 0, -1)) do answer[#answer + 1] = name end
return answer
";

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Hello,
    Join,
    Beat,
    Mark,
    End,
    Look,
    Put,
    EntryGet,
    EntryPut,
    EntryTake,
    EntryTakeTagged,
    EntryClear,
    EntryNames,
}

impl Script {
    pub(super) const ALL: [Self; 13] = [
        Self::Hello,
        Self::Join,
        Self::Beat,
        Self::Mark,
        Self::End,
        Self::Look,
        Self::Put,
        Self::EntryGet,
        Self::EntryPut,
        Self::EntryTake,
        Self::EntryTakeTagged,
        Self::EntryClear,
        Self::EntryNames,
    ];

    /// In Lua.
    pub(super) fn text(self) -> String {
        match self {
            Self::Hello => HELLO.to_owned(),
            Self::Join => [LIFE, MEMBER, TAGGED, JOIN, BEAT].concat(),
            Self::Beat => [LIFE, MEMBER, BEAT].concat(),
            Self::Mark => [LIFE, MEMBER, TAGGED, MOVED, MARK].concat(),
            Self::End => [LIFE, MEMBER, TAGGED, MOVED, END].concat(),
            Self::Look => [LIFE, TAGGED, MOVED, LOOK].concat(),
            Self::Put => [LIFE, PUT].concat(),
            Self::EntryGet => Self::of_entries(ENTRY_GET),
            Self::EntryPut => Self::of_entries(ENTRY_PUT),
            Self::EntryTake => Self::of_entries(ENTRY_TAKE),
            Self::EntryTakeTagged => Self::of_entries(ENTRY_TAKE_TAGGED),
            Self::EntryClear => Self::of_entries(ENTRY_CLEAR),
            Self::EntryNames => Self::of_entries(ENTRY_NAMES),
        }
    }

    fn of_entries(script: &str) -> String {
        [LIFE, MEMBER, ENTRIES, script].concat()
    }
}
