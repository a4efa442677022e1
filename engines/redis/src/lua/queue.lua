-- Queues. Of each, by its number (see docs.md):
--   q  hash    settings, sums            m  hash  content by message
--   r  zset    ready, by lane and age    s  hash  state by message
--   d  zset    delayed, by time          k  hash  ordering keys in flight
--   f  zset    in flight, by deadline    h  set   ordering keys with parked messages
--   x  zset    ready, by expiry          p  zset  parked messages of one ordering key
--   u  zset    message ids, by time      c  hash  consumers, n hash their credit, o zset by time
--   g  zset    consumers with credit, who waits longest first
-- The state of a message: p lane, w weight, a failures, b born, y routing key; and where they
-- apply x expiry, k ordering key, d deaths, r delivered before, and in flight: t token, n session,
-- c consumer, l deadline of its lease.
local Q = {}
local LANE = 281474976710656 -- 2^48 ages in a lane
local NEVER = 9007199254740991
local WORK = 256 -- things that end by themselves, dealt with at once
local BYTES = 8388608 -- of contents in one reply
local DEATHS = 16
local REMEMBERED = 120000 -- ms that a request is known
local opened, named, rings, dues = {}, {}, {}, {}

local function key(q, kind)
  local at = q.keys[kind]
  if not at then
    at = P .. ':q' .. kind .. ':' .. q.id
    q.keys[kind] = at
  end
  return at
end

local function refusal(kind, what)
  return { '!', kind, what or '' }
end

function Q.open(id)
  if opened[id] ~= nil then
    return opened[id]
  end
  local got = call('HMGET', P .. ':q:' .. id, 'name', 'messages_max', 'bytes_max', 'reject',
    'ttl', 'lease', 'deliveries_max', 'dead_letter', 'priority_max', 'dedup', 'single', 'auto',
    'paused', 'alone', 'serial')
  if not got[1] then
    opened[id] = false
    return false
  end
  local q = {
    id = id, name = got[1], messages_max = tonumber(got[2]), bytes_max = tonumber(got[3]),
    reject = got[4] == '1', ttl = tonumber(got[5]), lease = tonumber(got[6]),
    deliveries_max = tonumber(got[7]), dead = got[8], priority_max = tonumber(got[9]),
    dedup = tonumber(got[10]), single = got[11] == '1', auto = got[12] == '1',
    paused = got[13] == '1', alone = got[14], serial = tonumber(got[15] or '0'), keys = {},
    sums = {}, -- what is to be added to the queue's sums
  }
  opened[id] = q
  return q
end

function Q.find(name)
  local id = named[name]
  if id == nil then
    id = call('HGET', P .. ':queues', name)
    named[name] = id
  end
  return id and Q.open(id)
end

-- What was answered to a request, if it was carried out before.
function Q.seen(request)
  local seen = request ~= '' and call('GET', P .. ':rq:' .. request)
  return seen and cmsgpack.unpack(seen)
end

function Q.keep(request, reply)
  if request ~= '' then
    call('SET', P .. ':rq:' .. request, cmsgpack.pack(reply), 'PX', REMEMBERED)
  end
  return reply
end

function Q.sum(q, what, by)
  q.sums[what] = (q.sums[what] or 0) + by
end

function Q.add_up(q)
  for what, by in pairs(q.sums) do
    if by ~= 0 then
      call('HINCRBY', key(q, ''), what, by)
    end
  end
  q.sums = {}
end

function Q.state(q, id)
  local packed = call('HGET', key(q, 's'), id)
  return packed and cmsgpack.unpack(packed)
end

function Q.save(q, id, s)
  call('HSET', key(q, 's'), id, cmsgpack.pack(s))
end

-- The queue has to be looked at then, at the latest.
function Q.due(q, at)
  dues[q.id] = math.min(dues[q.id] or NEVER, at)
end

function Q.session_ends(session)
  return tonumber(call('ZSCORE', P .. ':sessions', session) or '0')
end

function Q.place(s, id)
  return text((31 - s.p) * LANE + tonumber(id))
end

function Q.ready(q, id, s)
  call('ZADD', key(q, 'r'), Q.place(s, id), id)
  if s.x then
    call('ZADD', key(q, 'x'), text(s.x), id)
    Q.due(q, s.x)
  end
  rings[q.id] = true
end

function Q.delay(q, id, at)
  call('ZADD', key(q, 'd'), text(at), id)
  Q.due(q, at)
end

-- The next of an ordering key has its turn.
function Q.unpark(q, name)
  local at = key(q, 'p') .. ':' .. name
  local id = call('ZRANGE', at, 0, 0)[1]
  if not id then
    return
  end
  call('ZREM', at, id)
  Q.sum(q, 'parked', -1)
  if call('EXISTS', at) == 0 then
    call('SREM', key(q, 'h'), name)
  end
  Q.ready(q, id, Q.state(q, id))
end

-- Takes a ready message out of its place.
function Q.unready(q, id, s)
  call('ZREM', key(q, 'r'), id)
  if s.x then
    call('ZREM', key(q, 'x'), id)
  end
  if s.k then
    Q.unpark(q, s.k)
  end
end

-- A message that is in no place any more goes.
function Q.remove(q, id, s)
  call('HDEL', key(q, 'm'), id)
  call('HDEL', key(q, 's'), id)
  Q.sum(q, 'bytes', -s.w)
end

-- From now on what is put into a queue is written at the end; for a queue without bounds, of which
-- nothing is read until then.
function Q.gather(q)
  if q.messages_max == 0 and q.bytes_max == 0 then
    q.fresh = { m = {}, s = {}, r = {} }
  end
end

function Q.write_fresh(q)
  local fresh = q.fresh or {}
  q.fresh = nil
  for kind, list in pairs(fresh) do
    if list[1] then
      call(kind == 'r' and 'ZADD' or 'HSET', key(q, kind), unpack(list))
    end
  end
end

local function both(list, a, b)
  list[#list + 1] = a
  list[#list + 1] = b
end

function Q.put(q, s, content, at)
  q.serial = q.serial + 1
  Q.sum(q, 'serial', 1)
  Q.sum(q, 'bytes', s.w)
  local id = text(q.serial)
  local fresh = q.fresh
  if fresh then
    both(fresh.m, id, content)
    both(fresh.s, id, cmsgpack.pack(s))
  else
    call('HSET', key(q, 'm'), id, content)
    Q.save(q, id, s)
  end
  if at > now then
    Q.delay(q, id, at)
  elseif fresh and not s.x then
    both(fresh.r, Q.place(s, id), id)
    rings[q.id] = true
  else
    Q.ready(q, id, s)
  end
end

function Q.bytes(q)
  return tonumber(call('HGET', key(q, ''), 'bytes') or '0') + (q.sums.bytes or 0)
end

-- Whether a queue that refuses has no room for so much more.
function Q.full(q, messages, bytes)
  return q.reject
    and ((q.messages_max > 0 and call('HLEN', key(q, 'm')) + messages > q.messages_max)
      or (q.bytes_max > 0 and Q.bytes(q) + bytes > q.bytes_max))
end

function Q.over(q)
  return not q.reject
    and ((q.messages_max > 0
        and call('HLEN', key(q, 'm')) - call('ZCARD', key(q, 'd')) > q.messages_max)
      or (q.bytes_max > 0 and Q.bytes(q) > q.bytes_max))
end

-- The oldest of the lowest lane go until there is room.
function Q.overflow(q)
  while Q.over(q) do
    local last = call('ZRANGE', key(q, 'r'), -1, -1, 'WITHSCORES')
    if not last[1] then
      return
    end
    local lane = math.floor((tonumber(last[2]) - 1) / LANE) * LANE
    local id = call('ZRANGEBYSCORE', key(q, 'r'), '(' .. text(lane), '+inf', 'LIMIT', 0, 1)[1]
    local s = Q.state(q, id)
    Q.unready(q, id, s)
    Q.die(q, id, s, 'overflow')
  end
end

-- Where a dead message goes. A queue that it died in before, without anybody rejecting it on the
-- way, is left out: it would go round for ever.
function Q.grave(q, s, reason)
  local to = q.dead and Q.find(q.dead)
  if not to or Q.full(to, 1, s.w) then
    return nil
  end
  local rejected, been = reason == 'rejected', to.id == q.id
  for _, death in ipairs(s.d or {}) do
    rejected = rejected or death[2] == 'rejected'
    been = been or death[1] == to.name
  end
  return (rejected or not been) and to or nil
end

function Q.die(q, id, s, reason)
  local to = Q.grave(q, s, reason)
  local content = to and call('HGET', key(q, 'm'), id)
  Q.remove(q, id, s)
  if not to then
    return Q.sum(q, 'dropped', 1)
  end
  Q.sum(q, 'dead', 1)
  local deaths, new = {}, { q.name, reason, 1, now }
  for _, death in ipairs(s.d or {}) do
    if death[1] == q.name and death[2] == reason then
      new = { q.name, reason, death[3] + 1, death[4] }
    else
      deaths[#deaths + 1] = death
    end
  end
  if #deaths >= DEATHS then
    table.remove(deaths, 1)
  end
  deaths[#deaths + 1] = new
  Q.put(to, Q.moved(to, s, deaths), content, 0)
  Q.overflow(to)
end

function Q.moved(to, s, deaths)
  local x = to.ttl > 0 and now + to.ttl or nil
  return { p = math.min(s.p, to.priority_max), w = s.w, a = 0, b = s.b, y = s.y, k = s.k,
    d = deaths, x = x }
end

-- A consumer that has credit again, or was served, waits behind the others.
function Q.queue_up(q, consumer)
  local turn = call('HINCRBY', key(q, ''), 'turns', 1)
  call('ZADD', key(q, 'g'), text(turn), consumer)
end

-- Ends a delivery: what it held is free.
function Q.land(q, id, s)
  call('ZREM', key(q, 'f'), id)
  if s.k then
    call('HDEL', key(q, 'k'), s.k)
    Q.unpark(q, s.k)
  end
  local n = key(q, 'n')
  if s.c and call('HEXISTS', n, s.c) == 1 and call('HINCRBY', n, s.c, 1) == 1 then
    Q.queue_up(q, s.c)
    rings[q.id] = true
  end
  s.t, s.n, s.c, s.l = nil, nil, nil, nil
end

-- A delivery failed: again, later, or never.
function Q.fail(q, id, s, delay)
  s.a, s.r = s.a + 1, true
  if q.deliveries_max > 0 and s.a >= q.deliveries_max then
    return Q.die(q, id, s, 'deliveries')
  end
  Q.sum(q, 'returned', 1)
  Q.save(q, id, s)
  if delay > 0 then
    Q.delay(q, id, now + delay)
  else
    Q.ready(q, id, s)
  end
end

function Q.settle(q, id, s, verdict, delay)
  Q.land(q, id, s)
  if verdict == 'ack' then
    Q.remove(q, id, s)
    Q.sum(q, 'acked', 1)
  elseif verdict == 'nack' then
    Q.fail(q, id, s, delay)
  elseif verdict == 'reject' then
    Q.die(q, id, s, 'rejected')
  else -- it was never in anybody's hands
    Q.save(q, id, s)
    Q.ready(q, id, s)
  end
end

function Q.deadline(s)
  return math.min(s.l or NEVER, Q.session_ends(s.n))
end

function Q.delete(q)
  local count = call('HLEN', key(q, 'm'))
  for _, name in ipairs(call('SMEMBERS', key(q, 'h'))) do
    call('UNLINK', key(q, 'p') .. ':' .. name)
  end
  for _, kind in ipairs({ '', 'm', 's', 'r', 'd', 'f', 'x', 'u', 'k', 'h', 'c', 'n', 'o', 'g' }) do
    call('UNLINK', key(q, kind))
  end
  call('HDEL', P .. ':queues', q.name)
  call('ZREM', P .. ':index:q', q.name)
  call('ZREM', P .. ':due', q.id)
  opened[q.id], dues[q.id], rings[q.id] = false, nil, true
  return count
end

function Q.drop_consumer(q, consumer)
  if call('HDEL', key(q, 'c'), consumer) == 0 then
    return
  end
  call('HDEL', key(q, 'n'), consumer)
  call('ZREM', key(q, 'o'), consumer)
  call('ZREM', key(q, 'g'), consumer)
  if q.alone == consumer then
    call('HDEL', key(q, ''), 'alone')
    q.alone = false
  end
  rings[q.id] = true
  if q.auto and call('HLEN', key(q, 'c')) == 0 then
    Q.delete(q)
  end
end

function Q.overdue(q, kind)
  return call('ZRANGEBYSCORE', key(q, kind), '-inf', text(now), 'LIMIT', 0, WORK)
end

-- Does what time has done to a queue; gives whether it is still there.
function Q.reap(q)
  for _, id in ipairs(Q.overdue(q, 'd')) do
    call('ZREM', key(q, 'd'), id)
    Q.ready(q, id, Q.state(q, id))
  end
  for _, id in ipairs(Q.overdue(q, 'f')) do
    local s = Q.state(q, id)
    local at = Q.deadline(s)
    if at > now then -- its session has shown that it lives
      call('ZADD', key(q, 'f'), text(at), id)
      Q.due(q, at)
    else
      Q.land(q, id, s)
      Q.fail(q, id, s, 0)
    end
  end
  for _, id in ipairs(Q.overdue(q, 'x')) do
    local s = Q.state(q, id)
    if s then -- an overflow may have been faster
      Q.unready(q, id, s)
      Q.die(q, id, s, 'expired')
    end
  end
  for _, consumer in ipairs(Q.overdue(q, 'o')) do
    local about = call('HGET', key(q, 'c'), consumer)
    local at = about and Q.session_ends(cmsgpack.unpack(about).n) or 0
    if at > now then
      call('ZADD', key(q, 'o'), text(at), consumer)
      Q.due(q, at)
    else
      Q.drop_consumer(q, consumer)
    end
  end
  return opened[q.id] and true
end

-- When a queue has to be looked at next.
function Q.next(q)
  local at = NEVER
  for _, kind in ipairs({ 'd', 'f', 'x', 'o' }) do
    local first = call('ZRANGE', key(q, kind), 0, 0, 'WITHSCORES')
    at = math.min(at, tonumber(first[2] or NEVER))
  end
  return at
end

-- Ends every script that may have changed a queue: adds up its sums, and tells who waits.
function Q.finish(reply)
  for _, q in pairs(opened) do
    if q then
      Q.write_fresh(q)
      Q.add_up(q)
    end
  end
  for id in pairs(rings) do
    call('PUBLISH', P .. ':b:q:' .. id, '')
  end
  if not next(dues) then
    return reply
  end
  local due, sooner = P .. ':due', false
  local first = tonumber(call('ZRANGE', due, 0, 0, 'WITHSCORES')[2] or NEVER)
  for id, at in pairs(dues) do
    if at < NEVER and at < tonumber(call('ZSCORE', due, id) or NEVER) then
      call('ZADD', due, text(at), id)
      sooner = sooner or at < first
    end
  end
  if sooner then
    call('PUBLISH', P .. ':b:due', '')
  end
  return reply
end

-- The session has something in a queue: it is known from now on, and which queues to look into
-- when it ends.
function Q.hold(q, session, ttl)
  local ends = Q.session_ends(session)
  if ends <= now then
    ends = ttl > 0 and now + ttl or NEVER
    call('ZADD', P .. ':sessions', text(ends), session)
  end
  local at = P .. ':sq:' .. session
  call('SADD', at, q.id)
  if ttl > 0 then
    call('PEXPIRE', at, text(math.floor(ttl / 500) + 3600000))
  end
  return ends
end

-- A delivery that a receipt names and its session may settle.
function Q.flight(queue, id, token, session)
  local q = Q.open(queue)
  if not q or not Q.reap(q) then
    return nil, refusal('stale', token)
  end
  local s = Q.state(q, id)
  if not s or not s.t or text(s.t) ~= token then
    return nil, refusal('stale', token)
  end
  if s.n ~= session then
    return nil, refusal('foreign', token)
  end
  return q, s
end

-- Checks settlements, five arguments each: queue, message, token, session, verdict and delay.
local SETTLE = 6
function Q.plan_settles(first, count)
  local plan, twice = {}, {}
  for i = first, first + (count - 1) * SETTLE, SETTLE do
    local q, s = Q.flight(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    if not q then
      return nil, s
    end
    local name = ARGV[i] .. ' ' .. ARGV[i + 1]
    if twice[name] then
      return nil, refusal('twice', ARGV[i + 2])
    end
    twice[name] = true
    plan[#plan + 1] = { q, ARGV[i + 1], s, ARGV[i + 4], tonumber(ARGV[i + 5]) }
  end
  return plan
end

function Q.apply_settles(plan)
  for _, one in ipairs(plan) do
    -- What one does may change another of its key: the state is read anew.
    Q.settle(one[1], one[2], Q.state(one[1], one[2]), one[4], one[5])
  end
end

-- Publishes, arguments: queue, mandatory, request, lane, ordering key, id, ttl, delay, due time,
-- weight, routing key, content.
local PUBLISH = 12
local TAKEN = { '+', 1, 0 }

-- Whether a queue has taken the same message id before.
function Q.duplicate(i, q)
  if q.dedup == 0 or ARGV[i + 5] == '' then
    return false
  end
  return tonumber(call('ZSCORE', key(q, 'u'), ARGV[i + 5]) or '0') > now
end

function Q.plan_publish(i, room)
  local q = Q.find(ARGV[i])
  if not q then
    if ARGV[i + 1] == '1' then
      return refusal('not-found', ARGV[i])
    end
    return { '+', 0, 0 }
  end
  if Q.duplicate(i, q) then
    return { '+', 0, 1 }
  end
  local weight = tonumber(ARGV[i + 9])
  local planned = room[q.id] or { 0, 0 }
  if Q.full(q, planned[1] + 1, planned[2] + weight) then
    -- What is over may make room.
    if not Q.reap(q) or Q.full(q, planned[1] + 1, planned[2] + weight) then
      return refusal('full', q.name)
    end
  end
  room[q.id] = { planned[1] + 1, planned[2] + weight }
  return nil, q
end

function Q.apply_publish(i, q)
  local delay, at = tonumber(ARGV[i + 7]), tonumber(ARGV[i + 8])
  if delay > 0 then
    at = now + delay
  end
  local ttl = tonumber(ARGV[i + 6])
  if q.ttl > 0 then
    ttl = ttl > 0 and math.min(ttl, q.ttl) or q.ttl
  end
  local s = { p = math.min(tonumber(ARGV[i + 3]), q.priority_max), w = tonumber(ARGV[i + 9]), a = 0,
    b = now, y = ARGV[i + 10] }
  if ARGV[i + 4] ~= '' then
    s.k = ARGV[i + 4]
  end
  if ttl > 0 then
    s.x = math.max(now, at) + ttl
  end
  if q.dedup > 0 and ARGV[i + 5] ~= '' then
    call('ZREMRANGEBYSCORE', key(q, 'u'), '-inf', text(now))
    call('ZADD', key(q, 'u'), text(now + q.dedup), ARGV[i + 5])
  end
  Q.put(q, s, ARGV[i + 11], at)
  Q.overflow(q)
  return TAKEN
end

function Q.pages(at, from, upto, after, max)
  return call('ZRANGEBYLEX', at, from, upto, 'LIMIT', after, max)
end

function Q.view(q)
  Q.add_up(q)
  local got = call('HMGET', key(q, ''), 'config', 'parked', 'bytes', 'paused', 'serial',
    'acked', 'returned', 'dead', 'dropped', 'purged')
  local view = { q.name, got[1], text(call('ZCARD', key(q, 'r'))),
    text(call('ZCARD', key(q, 'f'))), text(call('ZCARD', key(q, 'd'))),
    text(call('HLEN', key(q, 'c'))) }
  for i = 2, 10 do
    view[#view + 1] = got[i] or '0'
  end
  return view
end
