-- ARGV: until when it may be done or nothing, how many changes, then they, then what to ring.
local count = tonumber(ARGV[2])
local other = changed(3, count, ARGV[1] ~= '' and now >= tonumber(ARGV[1]))
if other then
  return other
end
local head = write(3, count)
for i = 3 + count * FIELDS, #ARGV do
  call('PUBLISH', ARGV[i], '')
end
return head
