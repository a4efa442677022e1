-- ARGV: name, how many.
local q = Q.find(ARGV[1])
if not q or not Q.reap(q) then
  return Q.finish(refusal('not-found', ARGV[1]))
end
local reply, bytes = { '+' }, 0
for _, id in ipairs(call('ZRANGE', key(q, 'r'), 0, tonumber(ARGV[2]) - 1)) do
  local s = Q.state(q, id)
  bytes = bytes + s.w
  if bytes > BYTES and #reply > 1 then
    break
  end
  local deaths = {}
  for _, death in ipairs(s.d or {}) do
    deaths[#deaths + 1] = { death[1], death[2], death[3], text(death[4]) }
  end
  reply[#reply + 1] = { s.a, text(s.b), deaths, call('HGET', key(q, 'm'), id) }
end
return Q.finish(reply)
