//! Reads JSON into Lua values.

use mlua::{Lua, Table, Value};

use super::super::raise;
use super::{DEPTH_MAX, read_number};

/// What stands at a place in the text.
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Wrong(&'static str),
}

impl Token {
    fn name(&self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::Text(_) => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Wrong(why) => why,
        }
    }
}

struct Reader<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
    /// Where the last token starts.
    start: usize,
    depth: usize,
    depth_max: usize,
    /// Whether numbers may be written in ways that JSON has not.
    wide: bool,
}

/// The value that `text` writes.
pub(super) fn decode(lua: &Lua, text: &[u8], depth: usize, wide: bool) -> mlua::Result<Value> {
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(raise::error(lua, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let depth_max = depth.min(DEPTH_MAX);
    let mut reader = Reader { lua, text, at: 0, start: 0, depth: 0, depth_max, wide };
    let token = reader.token();
    let value = reader.value(token)?;
    match reader.token() {
        Token::End => Ok(value),
        other => Err(reader.unexpected("the end", &other)),
    }
}

impl Reader<'_> {
    fn unexpected(&self, want: &str, token: &Token) -> mlua::Error {
        let (got, at) = (token.name(), self.start + 1);
        raise::error(self.lua, format_args!("Expected {want} but found {got} at character {at}"))
    }

    fn value(&mut self, token: Token) -> mlua::Result<Value> {
        Ok(match token {
            Token::Text(text) => Value::String(self.lua.create_string(text)?),
            Token::Number(number) => Value::Number(number),
            Token::Boolean(flag) => Value::Boolean(flag),
            Token::Null => Value::NULL,
            Token::ObjectBegin => Value::Table(self.object()?),
            Token::ArrayBegin => Value::Table(self.array()?),
            other => return Err(self.unexpected("value", &other)),
        })
    }

    fn descend(&mut self) -> mlua::Result<()> {
        self.depth += 1;
        if self.depth > self.depth_max {
            let (depth, at) = (self.depth, self.at);
            let text =
                format_args!("Found too many nested data structures ({depth}) at character {at}");
            return Err(raise::error(self.lua, text));
        }
        Ok(())
    }

    fn object(&mut self) -> mlua::Result<Table> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.token();
        if matches!(token, Token::ObjectEnd) {
            self.depth -= 1;
            return Ok(table);
        }
        loop {
            let Token::Text(key) = token else {
                return Err(self.unexpected("object key string", &token));
            };
            match self.token() {
                Token::Colon => {}
                other => return Err(self.unexpected("colon", &other)),
            }
            let next = self.token();
            let value = self.value(next)?;
            table.raw_set(self.lua.create_string(key)?, value)?;
            match self.token() {
                Token::ObjectEnd => break,
                Token::Comma => token = self.token(),
                other => return Err(self.unexpected("comma or object end", &other)),
            }
        }
        self.depth -= 1;
        Ok(table)
    }

    fn array(&mut self) -> mlua::Result<Table> {
        self.descend()?;
        let table = self.lua.create_table()?;
        let mut token = self.token();
        if matches!(token, Token::ArrayEnd) {
            self.depth -= 1;
            return Ok(table);
        }
        for i in 1.. {
            let value = self.value(token)?;
            table.raw_set(i, value)?;
            match self.token() {
                Token::ArrayEnd => break,
                Token::Comma => token = self.token(),
                other => return Err(self.unexpected("comma or array end", &other)),
            }
        }
        self.depth -= 1;
        Ok(table)
    }

    fn token(&mut self) -> Token {
        while self.text.get(self.at).is_some_and(|byte| b" \t\n\r".contains(byte)) {
            self.at += 1;
        }
        self.start = self.at;
        let rest = &self.text[self.at..];
        let Some(first) = rest.first() else { return Token::End };
        let (token, length) = match first {
            b'{' => (Token::ObjectBegin, 1),
            b'}' => (Token::ObjectEnd, 1),
            b'[' => (Token::ArrayBegin, 1),
            b']' => (Token::ArrayEnd, 1),
            b':' => (Token::Colon, 1),
            b',' => (Token::Comma, 1),
            b'"' => return self.string(),
            b'-' | b'+' | b'0'..=b'9' => return self.number(),
            b't' if rest.starts_with(b"true") => (Token::Boolean(true), 4),
            b'f' if rest.starts_with(b"false") => (Token::Boolean(false), 5),
            b'n' if rest.starts_with(b"null") => (Token::Null, 4),
            b'N' | b'n' | b'I' | b'i' if self.wide && not_finite(rest) => return self.number(),
            _ => (Token::Wrong("invalid token"), 0),
        };
        self.at += length;
        token
    }

    fn number(&mut self) -> Token {
        let rest = &self.text[self.at..];
        if !self.wide && !plain(rest) {
            return Token::Wrong("invalid number");
        }
        let bare = rest.strip_prefix(b"-").or(rest.strip_prefix(b"+")).unwrap_or(rest);
        let signs = rest.len() - bare.len();
        let hex = bare.len() > 2 && bare[0] == b'0' && bare[1] | 32 == b'x';
        let length = if not_finite(rest) {
            if bare.to_ascii_lowercase().starts_with(b"infinity") { 8 } else { 3 }
        } else if hex && bare[2].is_ascii_hexdigit() {
            2 + bare[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count()
        } else {
            decimal(bare)
        };
        if length == 0 {
            return Token::Wrong("invalid number");
        }
        self.at += signs + length;
        match read_number(&rest[..signs + length]) {
            Some(number) => Token::Number(number),
            None => Token::Wrong("invalid number"),
        }
    }

    fn string(&mut self) -> Token {
        let mut out = Vec::new();
        let mut at = self.at + 1;
        loop {
            let run = self.text[at..].iter().position(|byte| matches!(byte, b'"' | b'\\'));
            let Some(run) = run else {
                self.start = self.text.len();
                return Token::Wrong("unexpected end of string");
            };
            out.extend_from_slice(&self.text[at..at + run]);
            at += run;
            if self.text[at] == b'"' {
                self.at = at + 1;
                return Token::Text(out);
            }
            self.start = at;
            match self.escape(at, &mut out) {
                Ok(length) => at += length,
                Err(why) => return Token::Wrong(why),
            }
            self.start = self.at;
        }
    }

    /// Reads the escape at `at`; answers its length.
    fn escape(&self, at: usize, out: &mut Vec<u8>) -> Result<usize, &'static str> {
        let plain = match self.text.get(at + 1) {
            Some(b'b') => 8,
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'f') => 12,
            Some(b'r') => b'\r',
            Some(same @ (b'"' | b'\\' | b'/')) => *same,
            Some(b'u') => return self.unicode(at, out).ok_or("invalid unicode escape code"),
            _ => return Err("invalid escape code"),
        };
        out.push(plain);
        Ok(2)
    }

    fn unicode(&self, at: usize, out: &mut Vec<u8>) -> Option<usize> {
        let unit = |at: usize| {
            let escape = self.text.get(at..at + 6)?;
            let digits = escape.strip_prefix(b"\\u")?;
            let valid = digits.iter().all(u8::is_ascii_hexdigit);
            let digits = std::str::from_utf8(digits).ok()?;
            valid.then(|| u32::from_str_radix(digits, 16).ok())?
        };
        let mut point = unit(at)?;
        let mut length = 6;
        if point & 0xf800 == 0xd800 {
            let low = unit(at + 6).filter(|low| low & 0xfc00 == 0xdc00)?;
            if point & 0x400 != 0 {
                return None;
            }
            point = 0x1_0000 + ((point & 0x3ff) << 10 | (low & 0x3ff));
            length = 12;
        }
        let mut buffer = [0; 4];
        out.extend_from_slice(char::from_u32(point)?.encode_utf8(&mut buffer).as_bytes());
        Some(length)
    }
}

/// Whether a number is written as JSON wants it: no leading zeros, no hexadecimal, no `nan`.
fn plain(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    match text {
        [b'0', second, ..] => !(second.is_ascii_digit() || second | 32 == b'x'),
        [first, ..] => first.is_ascii_digit(),
        [] => false,
    }
}

/// Whether the text starts with `nan` or `inf`.
fn not_finite(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
    text.get(..3)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"nan") || word.eq_ignore_ascii_case(b"inf"))
}

/// How long the decimal number at the start of the text is.
fn decimal(text: &[u8]) -> usize {
    let digits = |from: usize| {
        text[from.min(text.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let whole = digits(0);
    let mut length = whole;
    if text.get(length) == Some(&b'.') {
        let fraction = digits(length + 1);
        if whole + fraction == 0 {
            return 0;
        }
        length += 1 + fraction;
    }
    if length == 0 {
        return 0;
    }
    if text.get(length).is_some_and(|byte| byte | 32 == b'e') {
        let sign = usize::from(text.get(length + 1).is_some_and(|byte| b"+-".contains(byte)));
        let exponent = digits(length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    length
}
