//! Lua's patterns, matched so that a script can be stopped.
//!
//! Lua's own matcher goes back and forth with nothing to stop it: a pattern of a few characters
//! can run for hours. It stays in use where its work is bounded, as [`widest`] says; everything
//! else is matched here, slower, and asks every so often whether the script has to stop. Patterns
//! mean what the manual of Lua 5.1 says (section 5.4.1).

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value, Variadic};

use super::raise::{self, as_bytes, bad_argument, bytes_at, number_or, type_name};
use super::{Bounds, Checkpoint};

/// Steps that Lua's own matcher may take without being asked to stop; some tens of milliseconds.
const STEPS: f64 = 5e6;
/// Steps between two questions.
const PAUSE: u32 = 1 << 16;
/// Calls inside each other, as many as Lua allows in C.
const DEPTH: u32 = 200;
const CAPTURES: usize = 32;
/// Characters that mean something in a pattern.
const SPECIALS: &[u8] = b"^$*+?.([%-";

/// The longest subject that Lua's own matcher may try a pattern on; below 0 if there is none or
/// the pattern is not valid.
pub(super) fn widest(pattern: &[u8]) -> f64 {
    let (mut at, mut loops, mut open, mut captures) = (0, 0, 0, 0);
    while let Some(byte) = pattern.get(at) {
        match byte {
            b'%' => match pattern.get(at + 1) {
                Some(b'b') if pattern.len() > at + 3 => {
                    loops += 1;
                    at += 2;
                }
                // Rare enough to leave to the careful matcher, with its errors.
                None | Some(b'b' | b'f' | b'0'..=b'9') => return -1.0,
                Some(_) => {}
            },
            b'[' => match class_end(pattern, at) {
                Some(end) => at = end - 2,
                None => return -1.0,
            },
            b'(' => {
                open += 1;
                captures += 1;
            }
            b')' => open -= 1,
            b'*' | b'+' | b'-' | b'?' => loops += 1,
            _ => {}
        }
        at += if matches!(byte, b'%' | b'[') { 2 } else { 1 };
        if open < 0 {
            return -1.0;
        }
    }
    if open != 0 || captures > CAPTURES || loops > 60 {
        return -1.0;
    }
    (STEPS / (pattern.len() as f64 + 1.0)).powf(1.0 / f64::from(loops + 1)).floor()
}

/// Where the class that starts at `at` ends.
fn class_end(pattern: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    match pattern.get(at)? {
        b'%' => pattern.get(end).map(|_| end + 1),
        b'[' => {
            if pattern.get(end) == Some(&b'^') {
                end += 1;
            }
            loop {
                let byte = pattern.get(end)?;
                end += 1;
                if *byte == b'%' {
                    pattern.get(end)?;
                    end += 1;
                }
                if pattern.get(end)? == &b']' {
                    return Some(end + 1);
                }
            }
        }
        _ => Some(end),
    }
}

/// What a capture holds.
#[derive(Debug, Clone, Copy)]
enum Capture {
    Open(usize),
    Text(usize, usize),
    Place(usize),
}

struct Matcher<'a> {
    lua: &'a Lua,
    subject: &'a [u8],
    pattern: &'a [u8],
    captures: Vec<Capture>,
    steps: u32,
    depth: u32,
    checkpoint: &'a Checkpoint,
}

impl<'a> Matcher<'a> {
    fn new(lua: &'a Lua, subject: &'a [u8], pattern: &'a [u8], checkpoint: &'a Checkpoint) -> Self {
        Self { lua, subject, pattern, captures: Vec::new(), steps: 0, depth: 0, checkpoint }
    }

    fn wrong(&self, text: &str) -> mlua::Error {
        raise::error(self.lua, text)
    }

    fn step(&mut self) -> mlua::Result<()> {
        self.steps += 1;
        if self.steps.is_multiple_of(PAUSE) {
            (self.checkpoint)()?;
        }
        Ok(())
    }

    /// A match of the whole pattern at `at`, without captures of an earlier one.
    fn start(&mut self, at: usize) -> mlua::Result<Option<usize>> {
        self.captures.clear();
        self.depth = 0;
        self.run(at, 0)
    }

    /// Where a match of the pattern from `p` ends.
    fn run(&mut self, s: usize, p: usize) -> mlua::Result<Option<usize>> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.wrong("pattern too complex"));
        }
        let end = self.run_inner(s, p);
        self.depth -= 1;
        end
    }

    fn run_inner(&mut self, mut s: usize, mut p: usize) -> mlua::Result<Option<usize>> {
        loop {
            self.step()?;
            let Some(first) = self.pattern.get(p).copied() else { return Ok(Some(s)) };
            match (first, self.pattern.get(p + 1)) {
                (b'(', Some(b')')) => return self.open(s, p + 2, Capture::Place(s)),
                (b'(', _) => return self.open(s, p + 1, Capture::Open(s)),
                (b')', _) => return self.close(s, p + 1),
                (b'$', None) => return Ok((s == self.subject.len()).then_some(s)),
                (b'%', Some(b'b')) => match self.balance(s, p + 2)? {
                    Some(end) => (s, p) = (end, p + 4),
                    None => return Ok(None),
                },
                (b'%', Some(b'f')) => match self.frontier(s, p + 2)? {
                    Some(next) => p = next,
                    None => return Ok(None),
                },
                (b'%', Some(digit @ b'0'..=b'9')) => match self.again(s, *digit)? {
                    Some(end) => (s, p) = (end, p + 2),
                    None => return Ok(None),
                },
                _ => {
                    let end = self.class_end(p)?;
                    let here = self.single(s, p, end);
                    match self.pattern.get(end) {
                        Some(b'?') => {
                            if here && let Some(found) = self.run(s + 1, end + 1)? {
                                return Ok(Some(found));
                            }
                            p = end + 1;
                        }
                        Some(b'*') => return self.longest(s, p, end, 0),
                        Some(b'+') => return self.longest(s, p, end, 1),
                        Some(b'-') => return self.shortest(s, p, end),
                        _ if here => (s, p) = (s + 1, end),
                        _ => return Ok(None),
                    }
                }
            }
        }
    }

    fn class_end(&self, p: usize) -> mlua::Result<usize> {
        class_end(self.pattern, p).ok_or_else(|| {
            self.wrong(match self.pattern[p] {
                b'%' => "malformed pattern (ends with '%')",
                _ => "malformed pattern (missing ']')",
            })
        })
    }

    fn single(&self, s: usize, p: usize, end: usize) -> bool {
        let Some(byte) = self.subject.get(s).copied() else { return false };
        match self.pattern[p] {
            b'.' => true,
            b'%' => in_class(byte, self.pattern[p + 1]),
            b'[' => in_set(byte, &self.pattern[p + 1..end - 1]),
            literal => literal == byte,
        }
    }

    fn longest(
        &mut self,
        s: usize,
        p: usize,
        end: usize,
        least: usize,
    ) -> mlua::Result<Option<usize>> {
        let mut count = 0;
        while self.single(s + count, p, end) {
            count += 1;
        }
        loop {
            if count < least {
                return Ok(None);
            }
            if let Some(found) = self.run(s + count, end + 1)? {
                return Ok(Some(found));
            }
            match count.checked_sub(1) {
                Some(less) => count = less,
                None => return Ok(None),
            }
        }
    }

    fn shortest(&mut self, mut s: usize, p: usize, end: usize) -> mlua::Result<Option<usize>> {
        loop {
            if let Some(found) = self.run(s, end + 1)? {
                return Ok(Some(found));
            }
            if !self.single(s, p, end) {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn open(&mut self, s: usize, p: usize, capture: Capture) -> mlua::Result<Option<usize>> {
        if self.captures.len() >= CAPTURES {
            return Err(self.wrong("too many captures"));
        }
        self.captures.push(capture);
        let found = self.run(s, p)?;
        if found.is_none() {
            self.captures.pop();
        }
        Ok(found)
    }

    fn close(&mut self, s: usize, p: usize) -> mlua::Result<Option<usize>> {
        let last = self.captures.iter().rposition(|capture| matches!(capture, Capture::Open(_)));
        let Some(i) = last else { return Err(self.wrong("invalid pattern capture")) };
        let open = self.captures[i];
        if let Capture::Open(start) = open {
            self.captures[i] = Capture::Text(start, s);
        }
        let found = self.run(s, p)?;
        if found.is_none() {
            self.captures[i] = open;
        }
        Ok(found)
    }

    fn balance(&mut self, s: usize, p: usize) -> mlua::Result<Option<usize>> {
        let Some([open, close]) = self.pattern.get(p..p + 2) else {
            return Err(self.wrong("unbalanced pattern"));
        };
        if self.subject.get(s) != Some(open) {
            return Ok(None);
        }
        let mut depth = 1;
        for (i, byte) in self.subject[s + 1..].iter().enumerate() {
            if byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(s + i + 2));
                }
            } else if byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    fn frontier(&mut self, s: usize, p: usize) -> mlua::Result<Option<usize>> {
        if self.pattern.get(p) != Some(&b'[') {
            return Err(self.wrong("missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(p)?;
        let set = &self.pattern[p + 1..end - 1];
        let before = if s == 0 { 0 } else { self.subject[s - 1] };
        let after = self.subject.get(s).copied().unwrap_or(0);
        Ok((!in_set(before, set) && in_set(after, set)).then_some(end))
    }

    fn again(&mut self, s: usize, digit: u8) -> mlua::Result<Option<usize>> {
        let i = usize::from(digit).wrapping_sub(usize::from(b'1'));
        let text = match self.captures.get(i) {
            Some(Capture::Text(from, to)) => &self.subject[*from..*to],
            Some(Capture::Place(_)) => return Ok(None),
            _ => return Err(self.wrong("invalid capture index")),
        };
        Ok(self.subject[s..].starts_with(text).then_some(s + text.len()))
    }

    fn capture(&self, i: usize) -> mlua::Result<Value> {
        match self.captures.get(i) {
            Some(Capture::Text(from, to)) => self.text(*from, *to),
            Some(Capture::Place(at)) => Ok(Value::Integer(*at as i64 + 1)),
            Some(Capture::Open(_)) => Err(self.wrong("unfinished capture")),
            None => Err(self.wrong("invalid capture index")),
        }
    }

    fn text(&self, from: usize, to: usize) -> mlua::Result<Value> {
        Ok(Value::String(self.lua.create_string(&self.subject[from..to])?))
    }

    /// All captures, or the whole match where there are none.
    fn captures(&self, from: usize, to: usize) -> mlua::Result<Vec<Value>> {
        if self.captures.is_empty() {
            return Ok(vec![self.text(from, to)?]);
        }
        (0..self.captures.len()).map(|i| self.capture(i)).collect()
    }
}

fn in_class(byte: u8, class: u8) -> bool {
    let found = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => byte.is_ascii_whitespace() || byte == 11,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    found != class.is_ascii_uppercase()
}

/// Whether a byte is in the set between the brackets.
fn in_set(byte: u8, set: &[u8]) -> bool {
    let (set, inside) = match set {
        [b'^', rest @ ..] => (rest, false),
        _ => (set, true),
    };
    let mut rest = set;
    while let [first, others @ ..] = rest {
        rest = match (first, others) {
            (b'%', [class, others @ ..]) => {
                if in_class(byte, *class) {
                    return inside;
                }
                others
            }
            (from, [b'-', to, others @ ..]) => {
                if (*from..=*to).contains(&byte) {
                    return inside;
                }
                others
            }
            (literal, others) => {
                if *literal == byte {
                    return inside;
                }
                others
            }
        };
    }
    !inside
}

/// Puts `find`, `match`, `gmatch` and `gsub` into a table.
pub(super) fn install(lua: &Lua, table: &Table, bounds: &Bounds) -> mlua::Result<()> {
    let Bounds { most, checkpoint } = bounds.clone();
    for (name, find) in [("find", true), ("match", false)] {
        let own = Rc::clone(&checkpoint);
        let function =
            lua.create_function(move |lua, args: MultiValue| search(lua, &args, name, find, &own))?;
        table.raw_set(name, function)?;
    }
    let own = Rc::clone(&checkpoint);
    let gmatch = lua.create_function(move |lua, args: MultiValue| {
        let subject = bytes_at(lua, &args, 0, "gmatch")?;
        let pattern = bytes_at(lua, &args, 1, "gmatch")?;
        let (own, mut from) = (Rc::clone(&own), 0);
        lua.create_function_mut(move |lua, ()| {
            let mut matcher = Matcher::new(lua, &subject, &pattern, &own);
            while from <= subject.len() {
                let at = from;
                from += 1;
                if let Some(end) = matcher.start(at)? {
                    from = end.max(from);
                    return Ok(Variadic::from(matcher.captures(at, end)?));
                }
            }
            Ok(Variadic::new())
        })
    })?;
    table.raw_set("gmatch", gmatch)?;
    let gsub = lua
        .create_function(move |lua, args: MultiValue| substitute(lua, &args, &checkpoint, most))?;
    table.raw_set("gsub", gsub)
}

fn search(
    lua: &Lua,
    args: &MultiValue,
    name: &str,
    find: bool,
    checkpoint: &Checkpoint,
) -> mlua::Result<Variadic<Value>> {
    let subject = bytes_at(lua, args, 0, name)?;
    let pattern = bytes_at(lua, args, 1, name)?;
    let init = number_or(lua, args, 2, name, 1.0)? as i64;
    let length = subject.len() as i64;
    let init = if init < 0 { length + init } else { init - 1 }.clamp(0, length) as usize;
    let told = args.get(3).is_some_and(|told| !matches!(told, Value::Nil | Value::Boolean(false)));
    if find && (told || !pattern.iter().any(|byte| SPECIALS.contains(byte))) {
        let found = position(&subject[init..], &pattern).map(|at| at + init);
        return Ok(Variadic::from(match found {
            Some(at) => {
                let last = (at + pattern.len()) as i64;
                vec![Value::Integer(at as i64 + 1), Value::Integer(last)]
            }
            None => vec![Value::Nil],
        }));
    }
    let (bare, anchored) = unanchored(&pattern);
    let mut matcher = Matcher::new(lua, &subject, bare, checkpoint);
    for at in init..=subject.len() {
        if let Some(end) = matcher.start(at)? {
            if !find {
                return Ok(Variadic::from(matcher.captures(at, end)?));
            }
            let mut values = vec![Value::Integer(at as i64 + 1), Value::Integer(end as i64)];
            if !matcher.captures.is_empty() {
                values.extend(matcher.captures(at, end)?);
            }
            return Ok(Variadic::from(values));
        }
        if anchored {
            break;
        }
    }
    Ok(Variadic::from(vec![Value::Nil]))
}

fn unanchored(pattern: &[u8]) -> (&[u8], bool) {
    match pattern.strip_prefix(b"^") {
        Some(bare) => (bare, true),
        None => (pattern, false),
    }
}

/// Where `needle` first stands, found in one pass (Knuth, Morris and Pratt).
fn position(hay: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    let mut borders = vec![0; needle.len()];
    let mut length = 0;
    for i in 1..needle.len() {
        while length > 0 && needle[i] != needle[length] {
            length = borders[length - 1];
        }
        length += usize::from(needle[i] == needle[length]);
        borders[i] = length;
    }
    let mut matched = 0;
    for (i, byte) in hay.iter().enumerate() {
        while matched > 0 && *byte != needle[matched] {
            matched = borders[matched - 1];
        }
        matched += usize::from(*byte == needle[matched]);
        if matched == needle.len() {
            return Some(i + 1 - matched);
        }
    }
    None
}

fn substitute(
    lua: &Lua,
    args: &MultiValue,
    checkpoint: &Checkpoint,
    most: usize,
) -> mlua::Result<(mlua::LuaString, usize)> {
    let subject = bytes_at(lua, args, 0, "gsub")?;
    let pattern = bytes_at(lua, args, 1, "gsub")?;
    let by = args.get(2).cloned().unwrap_or(Value::Nil);
    let text = as_bytes(&by);
    if text.is_none() && !matches!(by, Value::Function(_) | Value::Table(_)) {
        return Err(bad_argument(lua, 3, "gsub", "string/function/table expected"));
    }
    let times = number_or(lua, args, 3, "gsub", subject.len() as f64 + 1.0)?;
    let (bare, anchored) = unanchored(&pattern);
    let mut matcher = Matcher::new(lua, &subject, bare, checkpoint);
    let (mut at, mut count, mut out) = (0, 0, Vec::new());
    while (count as f64) < times {
        let end = matcher.start(at)?;
        if let Some(end) = end {
            count += 1;
            match &text {
                Some(text) => fill(&matcher, text, at, end, &mut out)?,
                None => ask(&matcher, &by, at, end, &mut out)?,
            }
        }
        match end {
            Some(end) if end > at => at = end,
            _ if at < subject.len() => {
                out.push(subject[at]);
                at += 1;
            }
            _ => break,
        }
        if out.len() > most {
            return Err(raise::error(lua, "resulting string too large"));
        }
        if anchored {
            break;
        }
    }
    out.extend_from_slice(subject.get(at..).unwrap_or_default());
    Ok((lua.create_string(out)?, count))
}

/// Appends a replacement text, with the captures that it names.
fn fill(
    matcher: &Matcher<'_>,
    text: &[u8],
    from: usize,
    to: usize,
    out: &mut Vec<u8>,
) -> mlua::Result<()> {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        match bytes.next() {
            Some(b'0') => out.extend_from_slice(&matcher.subject[from..to]),
            Some(digit @ b'1'..=b'9') => {
                let whole = *digit == b'1' && matcher.captures.is_empty();
                let value = match whole {
                    true => matcher.text(from, to)?,
                    false => matcher.capture(usize::from(digit - b'1'))?,
                };
                out.extend_from_slice(&as_bytes(&value).unwrap_or_default());
            }
            Some(other) => out.push(*other),
            None => {}
        }
    }
    Ok(())
}

/// Appends what a function or a table answers for the captures.
fn ask(
    matcher: &Matcher<'_>,
    by: &Value,
    from: usize,
    to: usize,
    out: &mut Vec<u8>,
) -> mlua::Result<()> {
    let mut captures = matcher.captures(from, to)?;
    let answer = match by {
        Value::Function(function) => function.call(Variadic::from(captures))?,
        Value::Table(table) => table.get::<Value>(captures.swap_remove(0))?,
        _ => Value::Nil,
    };
    match (&answer, as_bytes(&answer)) {
        (_, Some(text)) => out.extend_from_slice(&text),
        (Value::Nil | Value::Boolean(false), None) => {
            out.extend_from_slice(&matcher.subject[from..to]);
        }
        _ => {
            let text = format!("invalid replacement value (a {})", type_name(&answer));
            return Err(matcher.wrong(&text));
        }
    }
    Ok(())
}
