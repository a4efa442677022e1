-- ARGV: name, settings as text, then fields and their values.
local id = call('HGET', P .. ':queues', ARGV[1])
local known = id and call('HGET', P .. ':q:' .. id, 'config')
if known then
  return { '+', 1, known }
end
id = text(call('INCR', P .. ':queue-serial'))
call('HSET', P .. ':queues', ARGV[1], id)
call('ZADD', P .. ':index:q', 0, ARGV[1])
call('HSET', P .. ':q:' .. id, 'name', ARGV[1], 'config', ARGV[2])
for i = 3, #ARGV, 2 do
  call('HSET', P .. ':q:' .. id, ARGV[i], ARGV[i + 1])
end
return { '+', 0, ARGV[2] }
