-- ARGV: request, until when what was read holds, how many changes, settlements and publishes;
-- then they, and what the changes ring.
local seen = Q.seen(ARGV[1])
if seen then
  return seen
end
if ARGV[2] ~= '' and now >= tonumber(ARGV[2]) then
  return { 'late' }
end
local changes, settles, publishes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local other = changed(6, changes, false)
if other then
  table.insert(other, 1, 'changed')
  return other
end
local first = 6 + changes * FIELDS
local plan, refused = Q.plan_settles(first, settles)
if not plan then
  return Q.finish(refused)
end
first = first + settles * SETTLE
local last, room, arrivals = first + (publishes - 1) * PUBLISH, {}, {}
for i = first, last, PUBLISH do
  local answer, q = Q.plan_publish(i, room)
  if answer and answer[1] == '!' then
    return Q.finish(answer)
  end
  if q then
    arrivals[#arrivals + 1] = { i, q }
  end
end
local version = '0'
if changes > 0 then
  version = string.sub(write(6, changes), 1, 16)
  for i = last + PUBLISH, #ARGV do
    call('PUBLISH', ARGV[i], '')
  end
end
Q.apply_settles(plan)
for _, one in ipairs(arrivals) do
  -- One of them may have brought the id of another.
  if not Q.duplicate(one[1], one[2]) then
    Q.apply_publish(one[1], one[2])
  end
end
return Q.finish(Q.keep(ARGV[1], { '+', version }))
