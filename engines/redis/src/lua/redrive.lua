-- ARGV: from, to or nothing, how many at most, request. Gives how many were moved.
local seen = Q.seen(ARGV[4])
if seen then
  return seen
end
local q = Q.find(ARGV[1])
if not q or not Q.reap(q) then
  return Q.finish(refusal('not-found', ARGV[1]))
end
local given = ARGV[2] ~= '' and Q.find(ARGV[2])
if ARGV[2] ~= '' and not given then
  return Q.finish(refusal('not-found', ARGV[2]))
end
if given and given.id == q.id then
  return Q.finish(refusal('itself', q.name))
end
local count = 0
for _, id in ipairs(call('ZRANGE', key(q, 'r'), 0, tonumber(ARGV[3]) - 1)) do
  local s = Q.state(q, id)
  local first = s and s.d and s.d[1]
  local to = given or (first and Q.find(first[1]))
  if to and to.id ~= q.id and not Q.full(to, 1, s.w) then
    local content = call('HGET', key(q, 'm'), id)
    Q.unready(q, id, s)
    Q.remove(q, id, s)
    Q.put(to, Q.moved(to, s, nil), content, 0)
    Q.overflow(to)
    count = count + 1
  end
end
return Q.finish(Q.keep(ARGV[4], { '+', count }))
