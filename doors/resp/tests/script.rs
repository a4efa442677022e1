//! Scripts against a store in memory, and against a real Redis: what both answer is compared byte
//! for byte. The scripts of the comparison stand in `script.lua`.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use leasehold_resp_door::Reply;
use leasehold_resp_door::script::{Call, Host, Limits, Run, Scripts, Which};

#[derive(Default)]
struct Store {
    texts: HashMap<Vec<u8>, Vec<u8>>,
    log: Vec<(i64, Vec<u8>)>,
    killed: bool,
}

impl Host for Store {
    fn call(&mut self, call: Call<'_>) -> Reply {
        let name = call.args[0].to_ascii_lowercase();
        let writes = matches!(&name[..], b"set" | b"del" | b"incr" | b"lpush" | b"hset");
        if writes && call.read_only {
            return Reply::error("ERR Write commands are not allowed from read-only scripts.");
        }
        let held = call.args.get(1).and_then(|key| self.texts.get(*key));
        match (&name[..], &call.args[1..]) {
            (b"get", [_]) if held.is_some_and(|text| text == b"a list") => {
                Reply::error("WRONGTYPE Operation against a key holding the wrong kind of value")
            }
            (b"get", [_]) => held.map_or(Reply::Nil, Reply::bulk),
            (b"set", [key, text]) => {
                self.texts.insert(key.to_vec(), text.to_vec());
                Reply::OK
            }
            (b"del", [key]) => Reply::Int(self.texts.remove(*key).is_some().into()),
            (b"incr", [key]) => {
                let number: i64 = match held {
                    Some(text) => String::from_utf8_lossy(text).parse().unwrap(),
                    None => 0,
                };
                self.texts.insert(key.to_vec(), (number + 1).to_string().into_bytes());
                Reply::Int(number + 1)
            }
            (b"pexpire", [_, _]) => Reply::Int(held.is_some().into()),
            (b"lpush" | b"hset", [key, _, ..]) => {
                self.texts.insert(key.to_vec(), b"a list".to_vec());
                Reply::Int(1)
            }
            (b"hgetall", [_]) => Reply::Map(vec![(Reply::bulk("field"), Reply::bulk("5"))]),
            (b"subscribe", _) => Reply::error("ERR This Redis command is not allowed from script"),
            (b"get" | b"set" | b"del" | b"incr" | b"lpush", _) => {
                Reply::error("ERR Wrong number of args calling Redis command from script")
            }
            _ => Reply::error("ERR Unknown Redis command called from script"),
        }
    }

    fn interrupted(&mut self) -> bool {
        self.killed
    }

    fn log(&mut self, level: i64, text: &[u8]) {
        self.log.push((level, text.to_vec()));
    }
}

/// Little memory, and more time than any test takes on a busy machine.
fn small() -> Limits {
    Limits {
        memory_bytes: 16 << 20,
        time: Duration::from_secs(60),
        busy_after: Duration::from_millis(20),
        scripts_max: 100,
        script_bytes: 1 << 20,
    }
}

fn eval(scripts: &mut Scripts, source: &str) -> Reply {
    eval_on(scripts, source, &mut Store::default())
}

fn eval_on(scripts: &mut Scripts, source: &str, store: &mut Store) -> Reply {
    let which = Which::Source(source.as_bytes());
    scripts.run(&Run { which, keys: &[b"k"], args: &[b"v", b"w"], read_only: false }, store)
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Error(text) | Reply::Status(text) => text.to_string(),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_lock_is_released_by_its_holder_only() {
    const RELEASE: &[u8] = b"if redis.call('get',KEYS[1]) == ARGV[1] then \
        return redis.call('del',KEYS[1]) else return 0 end";
    let mut scripts = Scripts::new(small());
    let sha = scripts.load(RELEASE).unwrap();
    assert!(scripts.exists(&sha));
    let mut store = Store::default();
    store.texts.insert(b"k".to_vec(), b"mine".to_vec());
    let which = Which::Sha(&sha);
    let theirs = Run { which, keys: &[b"k"], args: &[b"theirs"], read_only: false };
    let reply = scripts.run(&theirs, &mut store);
    assert_eq!(reply, Reply::Int(0));
    let mine = Run { which, keys: &[b"k"], args: &[b"mine"], read_only: false };
    let reply = scripts.run(&mine, &mut store);
    assert_eq!(reply, Reply::Int(1));
    assert!(store.texts.is_empty());
    scripts.flush();
    assert!(!scripts.exists(&sha));
    let missing = Reply::error("NOSCRIPT No matching script. Please use EVAL.");
    assert_eq!(scripts.run(&mine, &mut store), missing);
}

/// What is carried out without Lua answers as Lua does; a comment keeps a script from that.
#[test]
fn a_guarded_command_answers_as_in_lua() {
    let mut scripts = Scripts::new(small());
    let mut answer = |source: &str, held: Option<&str>, read_only: bool| {
        let mut store = Store::default();
        store.texts.extend(held.map(|held| (b"k".to_vec(), held.into())));
        let which = Which::Source(source.as_bytes());
        let run = Run { which, keys: &[b"k"], args: &[b"v", b"w"], read_only };
        let reply = text(&scripts.run(&run, &mut store));
        // The place of an error names the script.
        let what = reply.split(" script: ").next().map(str::to_owned);
        (what, store.texts)
    };
    for (wanted, command) in [
        ("ARGV[1]", "'del', KEYS[1]"),
        ("ARGV[2]", "'DEL', KEYS[1]"),
        ("ARGV[3]", "'del', KEYS[1]"),
        ("KEYS[1]", "'pexpire', KEYS[1], ARGV[2]"),
        ("ARGV[1]", "'pexpire', KEYS[1], ARGV[2]"),
        ("ARGV[1]", "'pexpire', KEYS[1], ARGV[3]"),
        ("ARGV[1]", "'unlink', KEYS[1]"),
        ("ARGV[1]", "'del'"),
        ("ARGV[1]", "'del', KEYS[2]"),
    ] {
        let source = format!(
            "if redis.call('get', KEYS[1]) == {wanted} then return redis.call({command}) \
             else return -7 end"
        );
        let by_lua = format!("{source} -- by Lua");
        for held in [None, Some("v"), Some("k"), Some("other"), Some("a list")] {
            for read_only in [false, true] {
                let (one, other) =
                    (answer(&source, held, read_only), answer(&by_lua, held, read_only));
                assert_eq!(one, other, "{source} with {held:?}, read only: {read_only}");
            }
        }
    }
}

/// Scripts that try to run for ever or to take all memory.
const BOMBS: &[&str] = &[
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "while true do pcall(error, 'x') end",
    "while true do xpcall(function() while true do end end, function(e) return e end) end",
    "xpcall(function() error('x') end, function(e) while true do end end)",
    "coroutine.wrap(function() while true do end end)()",
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    "local f = function() while true do end end \
     while true do pcall(coroutine.wrap(function() pcall(f) f() end)) end",
    "while true do redis.pcall('get', 'x') end",
    "while true do pcall(redis.call, 'nonsense') end",
    "return string.find(string.rep('a', 5000), string.rep('a*', 30) .. 'b')",
    "return string.find(string.rep('a', 29), string.rep('a?', 29) .. string.rep('a', 29) .. 'b')",
    "return ('x'):rep(1e5):match('.-.-.-.-b')",
    "return (('x'):rep(1e6):gsub('.-b', ''))",
    "for _ in ('x'):rep(1e6):gmatch('.-b') do end while true do end",
    "while true do pcall(string.match, ('x'):rep(1e5), '.-.-b') end",
    "return ('a'):rep(1e9)",
    "return (''):rep(2^31) .. ('a'):rep(2^31)",
    "local s = 'x' while true do s = s .. s end",
    "local s = 'x' while true do pcall(function() while true do s = s .. s end end) end",
    "local t = {} while true do t[#t + 1] = {} end",
    "local t = {} while true do t[#t + 1] = cjson.decode('[[],[],[],[]]') end",
    "local t = {} for i = 1, 500 do t = {t, t, t} end return cjson.encode(t)",
    "local t = {} for i = 1, 100 do t = {t, t, t} end return t",
    "local t = {} for i = 1, 1e4 do t = {t} end return t",
    "local t = {} t[1] = t return t",
    "local t = {} t[1] = t return cjson.encode(t)",
    "cjson.encode_max_depth(2^31 - 1) local t = {} t[1] = t return cjson.encode(t)",
    "return cjson.decode(('['):rep(1e6))",
    "cjson.decode_max_depth(2^31 - 1) return cjson.decode(('['):rep(1e6))",
    "return cmsgpack.unpack(('\\145'):rep(1e6))",
    "return cmsgpack.unpack('\\221\\255\\255\\255\\255')",
    "return cmsgpack.unpack(('\\1'):rep(1e5))",
    "return struct.pack('i' .. ('c0'):rep(1e5), 1)",
    "return struct.pack('c2000000000', 'x')",
    "return {struct.unpack(('b'):rep(1e5), ('x'):rep(1e5))}",
    "local function f() return f() + 1 end return f()",
    "local function f() pcall(f) end while true do f() end",
    "local function f() local x = f() return x end while true do pcall(f) end",
    "local t = setmetatable({}, {}) getmetatable(t).__index = t return t.x",
    "local f f = function(...) return f(1, ...) end return f()",
    "local f f = function() return coroutine.wrap(f)() end return f()",
    "return table.concat(setmetatable({}, {}), 'x', 1, 2^30)",
    "return unpack({}, 1, 1e7)",
    "return redis.call('lpush', 'x', unpack({}, 1, 8500))",
    "local t = {} for i = 1, 1e5 do t[i] = i % 7 end while true do table.sort(t, nil) end",
    "local s = ('x'):rep(4e6) while true do local t = s .. 'y' end",
    "while true do collectgarbage() end",
    "return select(-1e9, 1)",
    "table.insert({1}, -2^31, 5) while true do end",
    "return loadstring(('('):rep(1e5))()",
    "return loadstring('return ' .. ('{'):rep(1e5))()",
    "local f, e = load(function() return 'x ' end) error(e)",
    "return tostring(nil) .. {}",
];

/// Each ends with an error, soon, and leaves the next one working.
#[test]
fn no_script_takes_the_thread() {
    let mut scripts = Scripts::new(Limits { time: Duration::from_millis(300), ..small() });
    for source in BOMBS {
        // Without the limit most of them would never come back.
        let reply = eval(&mut scripts, source);
        assert!(matches!(reply, Reply::Error(_)), "{source}: {reply:?}");
        assert!(scripts.memory() <= small().memory_bytes + (4 << 20), "{source}");
        let next = eval(&mut scripts, "return {KEYS[1], ARGV[1], ARGV[2], #KEYS, #ARGV}");
        let [k, v, w] = ["k", "v", "w"].map(Reply::bulk);
        assert_eq!(next, Reply::Array(vec![k, v, w, Reply::Int(1), Reply::Int(2)]), "{source}");
    }
}

#[test]
fn a_script_can_be_killed() {
    let mut scripts = Scripts::new(small());
    let mut store = Store { killed: true, ..Store::default() };
    let reply = eval_on(&mut scripts, "while true do pcall(error) end", &mut store);
    assert!(scripts.was_stopped());
    assert!(text(&reply).contains("SCRIPT KILL"), "{reply:?}");
}

#[test]
fn many_arguments_reach_the_host() {
    let mut scripts = Scripts::new(small());
    for count in [1, 6, 7, 8, 100, 7000] {
        let source = format!(
            "local t = {{}} for i = 1, {count} do t[i] = i end \
             return redis.call('lpush', 'k', unpack(t))"
        );
        assert_eq!(eval(&mut scripts, &source), Reply::Int(1), "{count}");
    }
    // As many as Lua's stack holds, more than there are places for references to strings.
    let most = "local t = {} for i = 1, 7950 do t[i] = 'x' .. i end \
        return {pcall(redis.call, 'lpush', 'k', unpack(t))}";
    assert!(matches!(eval(&mut scripts, most), Reply::Array(_) | Reply::Error(_)));
    assert_eq!(eval(&mut scripts, "return 1"), Reply::Int(1));
}

/// Nothing that a script leaves is there for the next one.
#[test]
fn nothing_leaks() {
    let mut scripts = Scripts::new(small());
    for (spoil, look) in [
        ("x = 1", "return rawget(_G, 'x')"),
        ("rawset(_G, 'x', 1)", "return rawget(_G, 'x')"),
        ("table.insert(_G, 1, 5)", "return rawget(_G, 1)"),
        ("table.insert(string, 5)", "return string[1]"),
        ("string.y = 1", "return string.y"),
        ("rawset(string, 'y', 1)", "return string.y"),
        ("getmetatable('').__index = {}", "return ('x').y"),
        ("getmetatable('').__index.y = 1", "return ('x').y"),
        ("getmetatable('').__add = 1", "return getmetatable('').__add"),
        ("setmetatable(_G, {__index = function() return 1 end})", "return rawget(_G, 'zz')"),
        ("setmetatable(redis, {})", "return redis.zz"),
        ("redis.call = nil", "return type(redis.call) == 'nil'"),
        ("KEYS = {1, 2}", "return #KEYS == 2"),
        ("KEYS.x = 1 KEYS[5] = 1", "return KEYS.x or KEYS[5]"),
        ("ARGV.x = 1", "return ARGV.x"),
        ("cjson.encode_number_precision(3)", "return cjson.encode(0.12345) ~= '0.12345'"),
        ("redis.setresp(3)", "return false"),
        ("collectgarbage('stop')", "return collectgarbage('count') > 1e5"),
        ("for k, v in pairs(_G) do if type(v) == 'table' then v.z = 1 end end", "return KEYS.z"),
        ("__redis__err__handler = nil", "return __redis__err__handler == nil"),
        ("loadstring('x = 1')()", "return rawget(_G, 'x')"),
        ("coroutine.wrap(function() x = 1 end)()", "return rawget(_G, 'x')"),
        ("coroutine.wrap(loadstring('x = 1'))()", "return rawget(_G, 'x')"),
    ] {
        eval(&mut scripts, spoil);
        let seen = eval(&mut scripts, look);
        assert_eq!(seen, Reply::Nil, "{spoil}: {look}");
    }
    let numbers = "return {math.random(1000), math.random(1000)}";
    let first = eval(&mut scripts, numbers);
    assert_eq!(first, eval(&mut scripts, numbers));
}

#[test]
fn what_could_step_out_is_not_there() {
    let mut scripts = Scripts::new(small());
    for name in [
        "io", "os", "debug", "package", "require", "module", "dofile", "loadfile", "print",
        "newproxy", "getfenv", "setfenv",
    ] {
        let reply = eval(&mut scripts, &format!("return {name}"));
        let want = format!("nonexistent global variable '{name}'");
        assert!(text(&reply).contains(&want), "{reply:?}");
    }
    for (source, want) in [
        ("return string.dump", Reply::Nil),
        ("return type(select(2, loadstring('\\27Lua')))", Reply::bulk("string")),
        (
            "local t = {'\\27Lua'} \
             return type(select(2, load(function() return table.remove(t) end)))",
            Reply::bulk("string"),
        ),
        ("return getmetatable(_G)", Reply::Nil),
        ("return type(getmetatable('').__index.rep)", Reply::bulk("function")),
    ] {
        assert_eq!(eval(&mut scripts, source), want, "{source}");
    }
}

#[test]
fn memory_stays_flat() {
    let mut scripts = Scripts::new(small());
    let source = "local t = {} for i = 1, 100 do t[i] = cjson.encode({i, redis.call('get', 'x')}) \
        end pcall(error, {}) pcall(redis.call, 'nonsense') \
        for w in ('a b c'):gmatch('%a') do t[#t + 1] = coroutine.wrap(function() end) end \
        return #t";
    for _ in 0..200 {
        assert_eq!(eval(&mut scripts, source), Reply::Int(103));
    }
    let before = scripts.memory();
    for _ in 0..2000 {
        eval(&mut scripts, source);
    }
    assert!(scripts.memory() < 2 * before + (1 << 20), "{before} {}", scripts.memory());
}

#[test]
fn the_longest_unused_scripts_go_first() {
    let mut scripts = Scripts::new(Limits { scripts_max: 20, ..small() });
    let kept = scripts.load(b"return 'kept'").unwrap();
    for i in 0..1000 {
        scripts.load(format!("return {i}").as_bytes()).unwrap();
        let run = Run { which: Which::Sha(&kept), keys: &[], args: &[], read_only: false };
        assert_eq!(scripts.run(&run, &mut Store::default()), Reply::bulk("kept"));
        assert!(scripts.len() <= 20);
    }
    let mut scripts = Scripts::new(Limits { script_bytes: 1000, ..small() });
    for i in 0..1000 {
        scripts.load(format!("return {i}").as_bytes()).unwrap();
    }
    assert!(scripts.len() <= 100);
    assert_eq!(eval(&mut scripts, "return 999"), Reply::Int(999));
    assert!(scripts.load(&[b' '; 1001]).is_err());
}

#[test]
fn scripts_survive_a_new_state() {
    let mut scripts = Scripts::new(small());
    let sha = scripts.load(b"return 'here'").unwrap();
    let run = Run { which: Which::Sha(&sha), keys: &[], args: &[], read_only: false };
    for _ in 0..3 {
        let reply = eval(&mut scripts, "local t = {} while true do t[#t + 1] = {} end");
        assert!(text(&reply).contains("memory"), "{reply:?}");
        assert_eq!(scripts.run(&run, &mut Store::default()), Reply::bulk("here"));
    }
}

#[test]
fn the_log_reaches_the_host() {
    let mut scripts = Scripts::new(small());
    let source = "redis.log(redis.LOG_WARNING, 'a', 1, 'b')";
    let mut store = Store::default();
    assert_eq!(eval_on(&mut scripts, source, &mut store), Reply::Nil);
    assert_eq!(store.log, [(3, b"a 1 b".to_vec())]);
}

/// Patterns that the careful matcher takes and those that Lua's own takes mean the same.
#[test]
fn both_matchers_agree() {
    let mut scripts = Scripts::new(small());
    let source = r#"
        local short = 'one  two=2 (x(y)z) THE (quick) fox.'
        local long = short .. ('.'):rep(300000)
        local out = {}
        for _, p in ipairs({'(%a+)=(%d+)', '%((%a+)%)', '()two()', '%s+', 'T%u-E', 'q[^%s]+',
            '[%a_]*x', '%d?%d', '[a-c%]]+', 'f.-x', '(o)(n)(e)', '^one', '%a%.', '^(o)', '()%d',
            '[^%a%s.]+', 'x$', '[]x]+', '[%z]', 'e[ -]'}) do
          for _, s in ipairs({short, long}) do
            local g = {s:gsub(p, '<%0>', 9)}
            local m = {}
            if p ~= '^one' and p ~= '^(o)' then for a, b in s:gmatch(p) do
              m[#m + 1] = tostring(a) .. tostring(b) end end
            g[1] = g[1]:sub(1, 30)
            out[#out + 1] = cjson.encode({p, {s:find(p)}, {s:match(p)}, g, m,
              {(s:gsub(p, {one = 1, x = 'yy'})):sub(1, 30)}, {s:find(p, 5)}, {s:find(p, 1, true)}})
          end
        end
        return out
    "#;
    let reply = eval(&mut scripts, source);
    let Reply::Array(replies) = reply else { panic!("{reply:?}") };
    for pair in replies.chunks(2) {
        assert_eq!(text(&pair[0]), text(&pair[1]));
    }
    assert_eq!(replies.len(), 40);
}

struct Server {
    child: Child,
    directory: PathBuf,
}

struct Redis {
    _server: Server,
    stream: TcpStream,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Redis {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("leasehold-script-{port}"));
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        command.args(["--bind", "127.0.0.1", "--dir"]).arg(&directory);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child
            .expect("redis-server is not on the path: install the package `redis-server` (7.0)");
        // Whatever happens from here on, dropping this stops the server.
        let mut guard = Server { child, directory };
        for _ in 0..200 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                stream.set_nodelay(true).unwrap();
                return Self { _server: guard, stream };
            }
            assert!(guard.child.try_wait().unwrap().is_none(), "redis-server ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("redis-server did not start on port {port}");
    }

    /// What Redis answers, as its bytes.
    fn ask(&mut self, args: &[&[u8]]) -> Vec<u8> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&request).unwrap();
        let mut answer = Vec::new();
        self.value(&mut answer);
        answer
    }

    fn value(&mut self, answer: &mut Vec<u8>) {
        let start = answer.len();
        while !answer[start..].ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        let kind = answer[start];
        let digits = String::from_utf8_lossy(&answer[start + 1..answer.len() - 2]).into_owned();
        let count = || digits.parse::<i64>().unwrap().max(0) as usize;
        match kind {
            b'$' | b'=' if !digits.starts_with('-') => {
                let mut bytes = vec![0; count() + 2];
                self.stream.read_exact(&mut bytes).unwrap();
                answer.extend_from_slice(&bytes);
            }
            b'*' | b'~' => (0..count()).for_each(|_| self.value(answer)),
            b'%' => (0..2 * count()).for_each(|_| self.value(answer)),
            _ => {}
        }
    }
}

/// A reply as a client of RESP3 gets it.
fn wire(reply: &Reply, out: &mut Vec<u8>) {
    let head = |out: &mut Vec<u8>, kind: char, rest: String| {
        out.extend_from_slice(format!("{kind}{rest}\r\n").as_bytes());
    };
    match reply {
        Reply::Status(text) => head(out, '+', text.to_string()),
        Reply::Error(text) => head(out, '-', text.to_string()),
        Reply::Int(whole) => head(out, ':', whole.to_string()),
        Reply::Bulk(bytes) => {
            head(out, '$', bytes.len().to_string());
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
        Reply::Nil | Reply::NilArray => head(out, '_', String::new()),
        Reply::Array(items) | Reply::Push(items) => {
            head(out, '*', items.len().to_string());
            items.iter().for_each(|item| wire(item, out));
        }
        Reply::Set(items) => {
            head(out, '~', items.len().to_string());
            items.iter().for_each(|item| wire(item, out));
        }
        Reply::Map(pairs) => {
            head(out, '%', pairs.len().to_string());
            for (key, value) in pairs {
                wire(key, out);
                wire(value, out);
            }
        }
        Reply::Double(number) => head(out, ',', number.to_string()),
        Reply::Bool(flag) => head(out, '#', if *flag { "t" } else { "f" }.to_owned()),
        Reply::Big(digits) => head(out, '(', digits.clone()),
        Reply::Verbatim(kind, bytes) => {
            head(out, '=', (bytes.len() + 4).to_string());
            out.extend_from_slice(kind);
            out.push(b':');
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Scripts whose replies are the same from both.
const SAME: &str = include_str!("script.lua");

#[test]
fn a_real_redis_answers_the_same() {
    let mut redis = Redis::start();
    redis.ask(&[b"HELLO", b"3"]);
    let version = String::from_utf8(redis.ask(&[b"INFO", b"server"])).unwrap();
    assert!(version.contains("redis_version:7.0."), "this compares with Redis 7.0: {version}");
    let mut scripts = Scripts::new(small());
    let mut store = Store::default();
    let mut wrong = Vec::new();
    let mut count = 0;
    for source in SAME.split("\n---\n") {
        let source = source.trim_end_matches('\n').as_bytes();
        count += 1;
        for (read_only, name) in [(false, &b"EVAL"[..]), (true, b"EVAL_RO")] {
            let theirs = redis.ask(&[name, source, b"1", b"k", b"v", b"w"]);
            let which = Which::Source(source);
            let run = Run { which, keys: &[b"k"], args: &[b"v", b"w"], read_only };
            let reply = scripts.run(&run, &mut store);
            let mut ours = Vec::new();
            wire(&reply, &mut ours);
            if ours != theirs {
                wrong.push(format!(
                    "{}\n  redis {}\n  here  {}",
                    String::from_utf8_lossy(source),
                    String::from_utf8_lossy(&theirs).escape_debug(),
                    String::from_utf8_lossy(&ours).escape_debug(),
                ));
            }
        }
    }
    assert!(count > 60, "{count} scripts");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
