return {KEYS[1], ARGV[1], ARGV[2], #KEYS, #ARGV}
---
return redis.call('get', 'none')
---
return redis.call('set', 'a', 'b')
---
return redis.call('get', 'a')
---
return redis.call('set', 'n', 1/3)
---
return redis.call('get', 'n')
---
return redis.call('set', 'n', 12345678901234567890)
---
return redis.call('get', 'n')
---
return redis.call('set', 'n', 10)
---
return redis.call('incr', 'n')
---
return redis.call('nonsense')
---
return redis.call('get')
---
return redis.call('subscribe', 'x')
---
redis.call('del', 'l') return redis.call('lpush', 'l', 'x')
---
return redis.call('get', 'l')
---
local x = 1

redis.call('get', 'l')
---
return redis.pcall('get', 'l')
---
return redis.pcall('nonsense')
---
local e = redis.pcall('get', 'l')
local t = {}
for k, v in pairs(e) do t[#t + 1] = k .. '=' .. tostring(v) end
table.sort(t)
return t
---
return {pcall(redis.call, 'get', 'l')}
---
return {pcall(error, {err = 'E x'})}
---
return {pcall(error, {x = 'E x'})}
---
return {pcall(error, 'x')}
---
return {xpcall(function() redis.call('get', 'l') end, function(e) return type(e) .. e.err end)}
---
return {xpcall(function() return 5 end, function(e) return 1 end)}
---
return coroutine.wrap(function() redis.call('get', 'l') end)()
---
return coroutine.wrap(function() error('x') end)()
---
return {coroutine.resume(coroutine.create(function() redis.call('get', 'l') end))}
---
local c = coroutine.create(function(a) local b = coroutine.yield(a + 1) return b * 2 end)
local _, one = coroutine.resume(c, 1)
local _, two = coroutine.resume(c, 5)
return {one, two, coroutine.status(c)}
---
error('boo')
---
error('boo', 0)
---
error('boo', 2)
---
error()
---
error(12)
---
error({err = 'My Err'})
---
error(redis.error_reply('MYCODE text'))
---
local function f()
  error('inside')
end

f()
---
local function f()
  error('inside', 2)
end
f()
---
local function f() return f() + 1 end return f()
---
local t = nil
return t.x
---
return 1 + {}
---
return nil .. 'x'
---
return {} < {}
---
return undefined()
---
x = 1
---
return x
---
_G.x = 1
---
return _G['x y']
---
string.x = 1
---
rawset(string, 'x', 1)
---
local x = rawset(_G, 'x', 1)
---
setmetatable(string, {})
---
local x = setmetatable(_G, {})
---
getmetatable('').__index = 1
---
return getmetatable('').__index == string
---
KEYS = {}
---
redis.call = 1
---
return {1, 2, nil, 4}
---
return {1.9, -1.9, 1e300, 0/0, 1/0, -1e300, 2^53}
---
return {true, false, 3}
---
return false
---
return true
---
return
---
return 'x\0y'
---
return {{}, {{}}, 'x', {1, {2, {3}}}}
---
return {ok = 'fine'}
---
return {ok = 'a\r\nb'}
---
return {err = 'MY error'}
---
return {err = 'a\r\nb'}
---
return {err = '-A b'}
---
return {1, {err = 'E x'}, {ok = 'y'}}
---
return {double = 3.5}
---
return {double = 3}
---
return {map = {a = 1}}
---
return {map = {a = {b = 1}}}
---
return {set = {a = true}}
---
return {big_number = '123456789012345678901234567890'}
---
return {big_number = '1\r\n2'}
---
return {verbatim_string = {string = 'text', format = 'txt'}}
---
return {ok = 1}
---
return {function() end, coroutine.create(function() end), 3}
---
redis.setresp(3) return {true, false, {map = {a = false}}}
---
redis.setresp(3) return redis.call('get', 'none') == nil
---
redis.call('del', 'h') return redis.call('hset', 'h', 'field', '5')
---
redis.setresp(3)
local r = redis.call('hgetall', 'h')
return {type(r.map), r.map.field}
---
redis.setresp(3) return redis.call('hgetall', 'h')
---
return redis.call('hgetall', 'h')
---
return redis.setresp(4)
---
return redis.setresp()
---
return redis.error_reply('FOO')
---
return redis.error_reply('FOO bar')
---
return redis.error_reply('-FOO bar')
---
return redis.error_reply(1)
---
return redis.error_reply('FOO bar', 1)
---
return redis.status_reply('FINE')
---
return redis.status_reply({})
---
return redis.sha1hex('')
---
return redis.sha1hex(123)
---
return redis.sha1hex()
---
return redis.call()
---
return redis.pcall()
---
return redis.call('set', {})
---
return redis.call('get', 'a', true)
---
return redis.call(1.5)
---
redis.log(1)
---
redis.log('x', 'y')
---
redis.log(9, 'y')
---
return redis.log(redis.LOG_DEBUG, 'y')
---
return redis.set_repl(redis.REPL_ALL)
---
return redis.set_repl(9)
---
return redis.replicate_commands()
---
return redis.breakpoint()
---
return redis.acl_check_cmd('get', 'x')
---
return redis.REDIS_VERSION
---
return redis.REDIS_VERSION_NUM
---
local t = {}
for k, v in pairs(redis) do
  if type(v) ~= 'function' then t[#t + 1] = k .. tostring(v) else t[#t + 1] = k end
end
table.sort(t)
return t
---
local t = {}
for k, v in pairs(_G) do t[#t + 1] = k .. type(v) end
table.sort(t)
return t
---
local t = {}
for _, m in ipairs({'table', 'math', 'cjson', 'cmsgpack', 'struct', 'bit', 'coroutine'}) do
  for k, v in pairs(_G[m]) do t[#t + 1] = m .. k .. type(v) end
end
table.sort(t)
return t
---
math.randomseed(42)
return {math.random(1000000), math.random(100), math.random(5, 6), tostring(math.random())}
---
math.randomseed(-1) return {math.random(1000000), math.random(1000000), math.random(1000000)}
---
return math.random(0)
---
return math.random(2, 1)
---
return math.random(1, 2, 3)
---
foo bar
---
if true then
---
return 1 end
---
return {err='a
b'}
---
#!lua flags=no-writes
return redis.call('set', 'x', 'y')
---
#!lua flags=no-writes,allow-oom
return redis.call('get', 'a')
---
#!lua flags=nope
return 1
---
#!lu
return 1
---
#!lua foo
return 1
---
#!lua
return 1
---
#!lua
---
return {tostring(loadstring('return 1')()), select(2, loadstring('\27Lua'))}
---
return {loadstring('x x')}
---
return {tostring(loadstring('x x')), select(2, loadstring('x x'))}
---
return loadstring('return ...')(7)
---
return loadstring('y = 1')()
---
return loadstring('error("in")', '@name')()
---
local i = 0
return load(function() i = i + 1 return ({'return ', '4', '2'})[i] end)()
---
return pairs(nil)
---
local x = pairs(1)
---
local x = next(nil)
---
local x = rawget(1, 2)
---
local x = setmetatable(1, {})
---
return type(next(_G)) .. type(next(string))
---
return tostring(rawget(_G, 'nothing')) .. type(rawget(string, 'rep'))
---
local x = ipairs(nil)
---
return tostring(1e15) .. ' ' .. 0.1 .. ' ' .. 1e100 .. ' ' .. -0 .. ' ' .. 100 .. ' ' .. 2^63
---
return {tonumber('0x1F'), tonumber('  12  '), tonumber('z', 36), tostring(tonumber('x'))}
---
return {string.format('%5.2f|%d|%s|%q|%x', 3.14159, 42, 'str', 'a"b\n', 255)}
---
return {('hello world'):find('o w'), ('hello'):find('l'), ('a.b'):find('.', 1, true)}
---
return {('key=value'):match('(%w+)=(%w+)')}
---
return {('hello world'):gsub('o', '0')}
---
return {('hello world'):gsub('(%w+)', '<%1>')}
---
return {('abc'):gsub('%w', {a = '1', b = true})}
---
return {('abc'):gsub('%w', {a = '1', b = false})}
---
return {('abc'):gsub('%w', function(c) return c .. c end)}
---
return {('abc'):gsub('', '-')}
---
return {('abc'):gsub('%w', '%1')}
---
local t = {}
for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do t[#t + 1] = k .. v end
return t
---
return {(('a,b,,c'):gsub(',', ';')), ('x'):rep(3), ('abc'):sub(-2), ('abc'):byte(1, -1)}
---
local x = ('x'):find('[a')
---
local x = ('x'):find('%')
---
local x = ('x'):match('(x')
---
local x = ('x'):match('x)')
---
local x = ('x'):gsub('x', 1, 'y')
---
local x = ('x'):gsub('x')
---
return {('THE (quick) fox'):find('%((%a+)%)')}
---
return {('f(a(b)c)d'):match('%b()'), ('THE fox'):gsub('%f[%a]%a+', 'X')}
---
return {('aa'):match('(a)%1'), ('xyz'):match('()y()')}
---
local t = {3, 1, 2}
table.sort(t)
table.insert(t, 4)
table.insert(t, 1, 0)
return {table.concat(t, ','), table.remove(t), #t, table.maxn(t)}
---
local t = {3, 1, 2} table.sort(t, function(a, b) return a > b end) return t
---
local x = table.concat({1, {}, 3})
---
return {unpack({1, 2, 3}, 2)}
---
return {select('#', 1, nil, 3), select(2, 'a', 'b')}
---
return cjson.encode({1, 2, {a = 'x/"\\ \1\127é'}, 1e15, 0.1, 1e100, 123456789012345678})
---
return {cjson.encode({}), cjson.encode({{}}), cjson.encode(cjson.null), cjson.encode(nil)}
---
return {cjson.encode('x'), cjson.encode(true), cjson.encode(12)}
---
return cjson.encode({a = 1, b = {1, 2, {c = cjson.null}}, d = 'x', [5] = 'five', e = false})
---
return cjson.encode({[true] = 1})
---
return cjson.encode({[1.5] = 1, [3] = 2})
---
return cjson.encode({function() end})
---
return cjson.encode({[1] = 1, [1000] = 1})
---
return cjson.encode({[1] = 1, [3] = 1})
---
local a = {cjson.encode_sparse_array(true)}
local b = cjson.encode({[1] = 1, [1000] = 1})
return {a, b, cjson.encode_sparse_array(false)}
---
return cjson.encode(1/0)
---
cjson.encode_invalid_numbers(true)
local r = cjson.encode({1/0, -1/0, 0/0})
cjson.encode_invalid_numbers(false)
return r
---
cjson.encode_invalid_numbers('null')
local r = cjson.encode({1/0, 0/0})
cjson.encode_invalid_numbers(false)
return r
---
return cjson.encode_invalid_numbers('foo')
---
return cjson.encode()
---
return cjson.encode(1, 2)
---
local t = {} for i = 1, 1005 do t = {t} end return cjson.encode(t)
---
local t = {} t[1] = t cjson.encode(t)
---
local r = cjson.decode('{"a":[1,2.5,{"b":null}],"c":"\\u00e9\\ud83d\\ude00\\n\\/","d":true}')
return {r.a[1], tostring(r.a[2]), r.a[3].b == cjson.null, r.c, r.d}
---
return cjson.encode(cjson.decode('{"z":1,"y":2,"x":[],"w":{},"v":{"k1":1,"k2":2,"k3":3}}'))
---
return cjson.decode('{"a":1,}')
---
return cjson.decode('{a:1}')
---
return cjson.decode('[1 2]')
---
return cjson.decode('[1,')
---
return cjson.decode('[1,]')
---
return cjson.decode('{"a" 1}')
---
return cjson.decode('{"a":1 "b"}')
---
return cjson.decode('1 2')
---
return cjson.decode('')
---
return cjson.decode('nul')
---
return cjson.decode('"abc')
---
return cjson.decode('"\\q"')
---
return cjson.decode('"abc\\u12"')
---
return cjson.decode('"\\ud800"')
---
return cjson.decode('-')
---
return cjson.decode('.5')
---
return {cjson.decode('01'), cjson.decode('0x10'), cjson.decode('+5'), cjson.decode('1.')}
---
return {cjson.decode('1e5'), cjson.decode(' [ 1 ] ')}
---
return {tostring(cjson.decode('nan')), tostring(cjson.decode('-Inf'))}
---
return tostring(cjson.decode('infinity'))
---
cjson.decode_invalid_numbers(false)
local ok, e = pcall(cjson.decode, '[0x10]')
cjson.decode_invalid_numbers(true)
return e
---
cjson.decode_invalid_numbers(false)
local ok, e = pcall(cjson.decode, '[01]')
cjson.decode_invalid_numbers(true)
return e
---
cjson.decode_invalid_numbers(false)
local ok, e = pcall(cjson.decode, '[nan]')
cjson.decode_invalid_numbers(true)
return e
---
return cjson.decode(string.rep('[', 1001))
---
return cjson.decode({})
---
return cjson.decode(12)
---
return {cjson.encode_max_depth(), cjson.decode_max_depth(), cjson.encode_number_precision()}
---
return {cjson.encode_keep_buffer(), cjson.decode_invalid_numbers()}
---
return cjson.encode_max_depth(0)
---
return cjson.encode_max_depth('x')
---
return cjson.encode_max_depth(1, 2)
---
return cjson.encode_number_precision(17)
---
local j = cjson.new()
j.encode_number_precision(3)
return {j.encode(0.12345), cjson.encode(0.12345)}
---
return cmsgpack.pack(1, -1, 300, -300, 70000, -70000, 2^40, -2^40, 1.5, 0.1, 'a', true, nil)
---
return cmsgpack.pack({}, {1, 2}, {a = 1}, {[1] = 1, [3] = 1}, {1, 2, x = 3}, {[1.5] = 1})
---
return cmsgpack.pack(127, 128, 255, 256, 65535, 65536, 2^32 - 1, 2^32)
---
return cmsgpack.pack(-32, -33, -128, -129, -32768, -32769, -2^31, -2^31 - 1)
---
return {cmsgpack.pack(string.rep('x', 31)), cmsgpack.pack(string.rep('x', 32))}
---
return {cmsgpack.pack(string.rep('x', 256)), cmsgpack.pack(string.rep('x', 65536))}
---
return {cmsgpack.pack(2^63), cmsgpack.pack(2^64), cmsgpack.pack(-2^63), cmsgpack.pack(1e300)}
---
return {cmsgpack.pack(1/0), cmsgpack.pack(function() end)}
---
local t = {} for i = 1, 20 do t = {t} end return cmsgpack.pack(t)
---
local t = {} for i = 1, 20 do t[i] = i end return cmsgpack.pack(t)
---
return cmsgpack.pack()
---
return {cmsgpack.unpack(cmsgpack.pack(1, -5, 1.5, 'x', true, {1, 2, {3}}, -70000, 2^40))}
---
return cmsgpack.unpack(cmsgpack.pack({a = {b = 'c'}})).a.b
---
return cmsgpack.unpack('\217')
---
return cmsgpack.unpack('\193')
---
return {cmsgpack.unpack_one('\1\2\3')}
---
return {cmsgpack.unpack_one('\1\2\3', 2)}
---
return {cmsgpack.unpack_one('\1\2\3', 9)}
---
return {cmsgpack.unpack_limit('\1\2\3', 2, 1)}
---
return {cmsgpack.unpack_limit('\1\2\3', -2, 1)}
---
return cmsgpack.unpack_limit('\1')
---
return cmsgpack.unpack()
---
return cmsgpack.unpack('')
---
return struct.pack('>I2', 258)
---
return {struct.pack('<i3', -2), struct.pack('>i3', -2)}
---
return struct.pack('bBhHlLTiIfd', -1, 255, -2, 65535, -3, 3, 4, -5, 5, 1.5, -2.25)
---
return {struct.pack('i16', -1), struct.pack('>i16', 1), struct.pack('<I10', 2^40)}
---
return struct.pack('i33', 1)
---
return struct.pack('q', 1)
---
return struct.pack('c5', 'abc')
---
return struct.pack('i')
---
return struct.pack('sxc0c2', 'ab', 'cd', 'efg')
---
return {struct.unpack('bc0', '\2abc')}
---
return {struct.unpack('c0', 'abc')}
---
return {struct.unpack('s', 'abc')}
---
return {struct.unpack('sb', 'abc\0\5')}
---
return {struct.unpack('i', 'abc')}
---
return {struct.unpack('i4', 'abcd', 9)}
---
return {struct.unpack('i4', 'abcd', 0)}
---
return {struct.unpack('>hHlL', 'abcdefghijklmnopqrstuvwxyz')}
---
return {struct.unpack('<I8', '\255\255\255\255\255\255\255\255')}
---
return {struct.unpack('<i3', '\254\255\255')}
---
return {struct.unpack('<!4 b i', struct.pack('<!4 b i', 1, 2))}
---
return {struct.size('!8bi8'), struct.size('bhilTfd'), struct.size('c10x'), struct.size('i0')}
---
return struct.size('s')
---
return struct.size('c0')
---
return struct.size('!3b')
---
return struct.size('c99999999999')
---
return {bit.tohex(255), bit.tohex(-1, -4), bit.tohex(1, 0), bit.tohex(2^31, 20)}
---
return {bit.band(1.5, 3), bit.band('3', '1'), bit.bor(1, 2, 4), bit.bxor(255, 15), bit.bnot(0)}
---
return {bit.tobit(2^40 + 5), bit.tobit(2.5), bit.tobit(3.5), bit.tobit(-1), bit.tobit(2^31)}
---
return {bit.lshift(1, 33), bit.rshift(-8, 1), bit.arshift(-8, 1), bit.rol(0x12345678, 8)}
---
return {bit.ror(0x12345678, 8), bit.bswap(0x12345678)}
---
return bit.band()
---
return bit.bor(nil)
---
return bit.band(1, {})
---
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end
---
redis.call('set', KEYS[1], ARGV[1]) return redis.call('get', KEYS[1])
