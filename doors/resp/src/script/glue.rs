//! The part of the sandbox that is written in Lua: what scripts see of Lua's own library.
//!
//! Tables of the library are empty ones that look into the real ones, so that nothing can be
//! assigned in them and nothing outlives a script. Functions that could step around that know the
//! pairs. Errors that a Rust function raised pass `pcall`, `xpcall` and `coroutine.resume`, which
//! turn them into what Redis raises there, or raise them again when the script has to stop.
//! Functions of C that could run for long within one instruction ask first.

/// Gets the globals, a table of functions in Rust and the longest string; answers the globals
/// that scripts see and the function that runs one.
pub(super) const SOURCE: &[u8] = br#"
local G, native, most = ...
local redis = redis
local type, error, select, tonumber, tostring = type, error, select, tonumber, tostring
local base, s, t = {}, {}, {}
for k, v in pairs(G) do base[k] = v end
for k, v in pairs(string) do s[k] = v end
for k, v in pairs(table) do t[k] = v end
local setmetatable, next = setmetatable, next
local caught, checkpoint, widest = native.caught, native.checkpoint, native.widest
local slow, failed, compiled = native.pattern, native.failed, native.compiled
local real = {}
local READONLY = 'Attempt to modify a readonly table'

local function readonly() error(READONLY, 2) end

local function protect(table)
  local seen = {}
  real[seen] = table
  return setmetatable(seen, {__index = table, __newindex = readonly, __metatable = false})
end

-- Raises an error with a place that is replaced by the script's.
local function wrong(number, name, what)
  error('sandbox:0: bad argument #' .. number .. " to '" .. name .. "' (" .. what .. ')', 0)
end

local function want_table(value, number, name)
  if type(value) ~= 'table' then
    wrong(number, name, 'table expected, got ' .. type(value))
  end
end

-- Errors.

local function settle(ok, first, ...)
  if ok then return ok, first, ... end
  first = caught(first)
  if type(first) == 'table' then
    local text = first.err
    if type(text) == 'string' or type(text) == 'number' then return false, text end
    return false, first, text
  end
  return false, first
end

function G.pcall(...)
  if select('#', ...) == 0 then wrong(1, 'pcall', 'value expected') end
  return settle(base.pcall(...))
end

local function settle_as_is(ok, first, ...)
  if ok then return ok, first, ... end
  return false, caught(first)
end

function G.xpcall(f, handler)
  return settle_as_is(base.xpcall(f, function(err) return handler(caught(err)) end))
end

local resume = coroutine.resume
function coroutine.resume(...) return settle_as_is(resume(...)) end

local call = redis.call
function redis.pcall(...)
  local ok, answer = base.pcall(call, ...)
  if ok then return answer end
  answer = caught(answer)
  if type(answer) ~= 'table' then answer = {err = 'ERR ' .. tostring(answer)} end
  return answer
end

-- Tables that nobody may change.

function G.pairs(table)
  want_table(table, 1, 'pairs')
  return next, real[table] or table, nil
end

function G.next(table, key)
  want_table(table, 1, 'next')
  return next(real[table] or table, key)
end

function G.rawget(table, key)
  want_table(table, 1, 'rawget')
  return base.rawget(real[table] or table, key)
end

function G.rawset(table, key, value)
  want_table(table, 1, 'rawset')
  if real[table] then error(READONLY, 0) end
  return base.rawset(table, key, value)
end

function G.setmetatable(table, meta)
  want_table(table, 1, 'setmetatable')
  if real[table] then error(READONLY, 0) end
  return base.setmetatable(table, meta)
end

function table.insert(list, ...)
  if real[list] then error(READONLY, 0) end
  if select('#', ...) > 1 and type(list) == 'table' then
    -- Everything from the place on moves, a place far below the first one included.
    local moves = #list - (tonumber((...)) or 1)
    if moves > #list + 1000000 then wrong(2, 'insert', 'position out of bounds') end
    if moves > 1000 then checkpoint() end
  end
  return t.insert(list, ...)
end

function table.sort(list, before)
  if type(list) == 'table' and #list > 1000 then checkpoint() end
  return t.sort(list, before)
end

function table.foreach(table, f)
  want_table(table, 1, 'foreach')
  return t.foreach(real[table] or table, f)
end

-- Code from text, never from bytecode: with a blank in front it reads as text.

local function compile(source, name)
  if s.byte(source) == 27 then source = ' ' .. source end
  return base.loadstring(source, name)
end

function G.loadstring(source, name)
  if type(source) == 'number' then source = tostring(source) end
  if type(source) ~= 'string' then
    wrong(1, 'loadstring', 'string expected, got ' .. type(source))
  end
  return compile(source, name or source)
end

function G.load(read, name)
  if type(read) ~= 'function' then
    wrong(1, 'load', 'function expected, got ' .. type(read))
  end
  local pieces, count = {}, 0
  for piece in read do
    if type(piece) ~= 'string' then return nil, 'reader function must return a string' end
    if piece == '' then break end
    count = count + 1
    pieces[count] = piece
  end
  return compile(t.concat(pieces), name or '=(load)')
end

function G.collectgarbage(what, number)
  checkpoint()
  if what == nil or what == 'collect' or what == 'count' or what == 'step' then
    return base.collectgarbage(what, number)
  end
  return 0
end

-- Strings.

local widths, width_count = {}, 0
local function width(pattern)
  local most = widest(pattern)
  if #pattern > 200 then return most end
  if width_count >= 500 then widths, width_count = {}, 0 end
  widths[pattern], width_count = most, width_count + 1
  return most
end

local function bounded(subject, pattern)
  return type(subject) == 'string' and type(pattern) == 'string'
    and #subject <= (widths[pattern] or width(pattern))
end

function string.find(subject, pattern, from, plain)
  if bounded(subject, pattern) then return s.find(subject, pattern, from, plain) end
  return slow.find(subject, pattern, from, plain)
end

function string.match(subject, pattern, from)
  if bounded(subject, pattern) then return s.match(subject, pattern, from) end
  return slow.match(subject, pattern, from)
end

function string.gmatch(subject, pattern)
  if bounded(subject, pattern) then return s.gmatch(subject, pattern) end
  return slow.gmatch(subject, pattern)
end
string.gfind = string.gmatch

function string.gsub(subject, pattern, by, count)
  local kind = type(by)
  if bounded(subject, pattern) and (kind == 'string' or kind == 'function' or kind == 'table') then
    return s.gsub(subject, pattern, by, count)
  end
  return slow.gsub(subject, pattern, by, count)
end

function string.rep(text, count)
  local times = tonumber(count)
  if times and times > 1000 and (type(text) == 'string' or type(text) == 'number') then
    if text == '' then return '' end
    if #tostring(text) * times > most then error('sandbox:0: resulting string too large', 0) end
    checkpoint()
  end
  return s.rep(text, count)
end

string.dump = nil
for _, name in ipairs({'dofile', 'getfenv', 'loadfile', 'module', 'newproxy', 'print', 'require',
    'setfenv'}) do
  G[name] = nil
end

-- What scripts see.

local meta = getmetatable('')
meta.__metatable = protect({__index = string})
for _, name in ipairs({'bit', 'cjson', 'cmsgpack', 'coroutine', 'math', 'redis', 'string',
    'struct', 'table'}) do
  G[name] = protect(G[name])
end
real[meta.__metatable].__index = G.string
G.__redis__err__handler = function(err) return err end
setmetatable(G, {__index = function(_, name)
  error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end})
local seen = protect(G)
G._G = seen

local function run(slot, keys, arguments)
  G.KEYS, G.ARGV = keys, arguments
  return base.xpcall(compiled[slot], failed)
end

return seen, run
"#;
