-- ARGV: queue, message, token, session, lease.
local q, s = Q.flight(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
if not q then
  return Q.finish(s)
end
s.l = now + tonumber(ARGV[5])
Q.save(q, ARGV[2], s)
local at = Q.deadline(s)
call('ZADD', key(q, 'f'), text(at), ARGV[2])
Q.due(q, at)
return Q.finish({ '+' })
