-- One bucket's ring, as ring.rs describes it. Fields of its hash: `l` the life, `k` the slot that is being filled, `o` by how many
-- slots the ring's clock is ahead, `t` the total, `0`, `1`, … the slots.
-- keys: the ring. args: microseconds of a slot, slots, limit, need, also, extra, parts, life, slot of what comes back, units of
-- it, then pairs of what is told: how many slots ago, units. Answers granted, left, microseconds until a retry, slot, life.
local function take(keys, args)
  local key = keys[1]
  local width, slots = tonumber(args[1]), tonumber(args[2])
  local limit, need, also = tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
  local extra, parts = tonumber(args[6]), tonumber(args[7])
  local function whole(number) return string.format('%.0f', number) end
  local time = redis.call('TIME')
  local micros = time[1] * 1000000 + time[2]
  local raw = math.floor(micros / width)

  local known = redis.call('HMGET', key, 'l', 'k', 'o', 't')
  local life, tick = known[1], tonumber(known[2] or nil)
  local ahead, total = tonumber(known[3] or nil), tonumber(known[4] or nil)
  if not (life and tick and ahead and total) then
    redis.call('DEL', key)
    life, tick, ahead, total = whole(math.max(micros, 1)), raw, 0, 0
  end
  local now = raw + ahead
  if now < tick then
    ahead = tick - raw
    now = tick
  end
  local function slot(at) return whole(at % slots) end

  local gone = {}
  for at = math.max(tick + 1, now + 1 - slots), now do gone[#gone + 1] = slot(at) end
  if #gone > 0 then
    for _, units in ipairs(redis.call('HMGET', key, unpack(gone))) do
      total = total - (tonumber(units or nil) or 0)
    end
    redis.call('HDEL', key, unpack(gone))
  end

  if args[8] == '0' or args[8] == life then
    local back_at, back = tonumber(args[9]), tonumber(args[10])
    if back > 0 and back_at <= now and back_at + slots > now then
      back = math.min(back, tonumber(redis.call('HGET', key, slot(back_at)) or nil) or 0)
      -- As text, 0 would be -0, which is no number to Redis.
      if back > 0 then redis.call('HINCRBY', key, slot(back_at), whole(-back)) end
      total = total - back
    end
    for i = 11, #args, 2 do
      local age, units = tonumber(args[i]), tonumber(args[i + 1])
      if age < slots then
        redis.call('HINCRBY', key, slot(now - age), whole(units))
        total = total + units
      end
    end
  end

  local left, granted, retry = limit - total, 0, 0
  if need > 0 and need <= left then
    granted = need + math.min(also, left - need)
    granted = granted + math.min(extra, math.floor((left - granted) / parts))
    redis.call('HINCRBY', key, slot(now), whole(granted))
    total, left = total + granted, left - granted
  elseif need > 0 and need <= limit then
    local all, missing = {}, need - left
    for at = now + 1 - slots, now do all[#all + 1] = slot(at) end
    for i, units in ipairs(redis.call('HMGET', key, unpack(all))) do
      missing = missing - (tonumber(units or nil) or 0)
      if missing <= 0 then
        retry = (now + i) * width - (micros + ahead * width)
        break
      end
    end
  end
  redis.call('HSET', key, 'l', life, 'k', whole(now), 'o', whole(ahead), 't', whole(total))
  redis.call('PEXPIRE', key, whole(math.ceil((slots + 1) * width / 1000)))
  return { granted, left, retry, now, life }
end

-- keys: all members. args: one of them, and for how many milliseconds it counts. Answers how many count now.
local function members(keys, args)
  local time = redis.call('TIME')
  local now, most = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(args[2])
  redis.call('HSET', keys[1], args[1], string.format('%.0f', now))
  redis.call('PEXPIRE', keys[1], args[2])
  local all, count = redis.call('HGETALL', keys[1]), 0
  for i = 1, #all, 2 do
    if math.abs(now - tonumber(all[i + 1])) < most then
      count = count + 1
    else
      redis.call('HDEL', keys[1], all[i])
    end
  end
  return count
end
