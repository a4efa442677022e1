-- ARGV: publishes.
local names = {}
for i = 3, #ARGV, PUBLISH do
  names[#names + 1] = P .. ':rq:' .. ARGV[i]
end
local known, answered = call('MGET', unpack(names)), {}
local taken = cmsgpack.pack(TAKEN)
local reply = { '+' }
for i = 1, #ARGV, PUBLISH do
  local at = names[#reply]
  local answer = known[#reply] and cmsgpack.unpack(known[#reply]) or answered[at]
  if not answer then
    local q
    answer, q = Q.plan_publish(i, {})
    if q then
      if #names > 1 and not q.fresh then
        Q.gather(q)
      end
      answer = Q.apply_publish(i, q)
      answered[at] = answer
      call('SET', at, taken, 'PX', REMEMBERED)
    end
  end
  reply[#reply + 1] = answer
end
return Q.finish(reply)
