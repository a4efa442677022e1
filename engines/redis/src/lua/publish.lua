-- ARGV: publishes.
local reply = { '+' }
for i = 1, #ARGV, PUBLISH do
  local answer = Q.seen(ARGV[i + 2])
  if not answer then
    local q
    answer, q = Q.plan_publish(i, {})
    if q then
      answer = Q.keep(ARGV[i + 2], Q.apply_publish(i, q))
    end
  end
  reply[#reply + 1] = answer
end
return Q.finish(reply)
