//! The library `struct`, which lays values out as C structures do.
//!
//! Formats, texts and limits are those of struct 0.2 (<http://www.inf.puc-rio.br/~roberto/struct/>)
//! as Redis 7.0 carries it.

use mlua::{Lua, MultiValue, Table, Value, Variadic};

use super::raise::{self, bad_argument, bytes_at, number_at, number_or};

/// The widest whole number, in bytes.
const WIDEST: usize = 32;
/// Values in one answer; Lua's stack holds no more.
const ANSWERS: usize = 7000;

/// Makes the library; `most` is the longest text that it packs.
pub(super) fn module(lua: &Lua, most: usize) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set(
        "pack",
        lua.create_function(move |lua, args: MultiValue| pack(lua, &args, most))?,
    )?;
    table.raw_set("unpack", lua.create_function(|lua, args: MultiValue| unpack(lua, &args))?)?;
    table.raw_set("size", lua.create_function(|lua, args: MultiValue| size(lua, &args))?)?;
    Ok(table)
}

/// A format, read option by option.
struct Format<'a> {
    lua: &'a Lua,
    name: &'static str,
    text: &'a [u8],
    at: usize,
    big: bool,
    align: usize,
}

impl<'a> Format<'a> {
    fn new(lua: &'a Lua, name: &'static str, text: &'a [u8]) -> Self {
        Self { lua, name, text, at: 0, big: cfg!(target_endian = "big"), align: 1 }
    }

    /// The digits at the reading place, or `otherwise`.
    fn digits(&mut self, otherwise: usize) -> mlua::Result<usize> {
        let mut number = None;
        while let Some(digit) = self.text.get(self.at).filter(|byte| byte.is_ascii_digit()) {
            let sum = number.unwrap_or(0usize) * 10 + usize::from(digit - b'0');
            if sum > i32::MAX as usize {
                return Err(raise::error(self.lua, "integral size overflow"));
            }
            number = Some(sum);
            self.at += 1;
        }
        Ok(number.unwrap_or(otherwise))
    }

    /// The next option with its size; none at the end.
    fn next(&mut self) -> mlua::Result<Option<(u8, usize)>> {
        let Some(option) = self.text.get(self.at).copied() else { return Ok(None) };
        self.at += 1;
        let size = match option {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.digits(1)?,
            b'i' | b'I' => {
                let size = self.digits(4)?;
                if size > WIDEST {
                    let text =
                        format_args!("integral size {size} is larger than limit of {WIDEST}");
                    return Err(raise::error(self.lua, text));
                }
                size
            }
            _ => 0,
        };
        Ok(Some((option, size)))
    }

    /// Bytes between `length` and the place where an option of that size may stand.
    fn padding(&self, option: u8, size: usize, length: usize) -> usize {
        let size = size.min(self.align);
        if option == b'c' || size <= 1 {
            return 0;
        }
        (size - (length & (size - 1))) & (size - 1)
    }

    /// Carries out an option that has no value.
    fn control(&mut self, option: u8) -> mlua::Result<()> {
        match option {
            b' ' => {}
            b'>' => self.big = true,
            b'<' => self.big = false,
            b'!' => {
                let align = self.digits(8)?;
                if !align.is_power_of_two() {
                    let text = format_args!("alignment {align} is not a power of 2");
                    return Err(raise::error(self.lua, text));
                }
                self.align = align;
            }
            other => {
                let what = format!("invalid format option '{}'", char::from(other));
                return Err(bad_argument(self.lua, 1, self.name, what));
            }
        }
        Ok(())
    }
}

fn pack(lua: &Lua, args: &MultiValue, most: usize) -> mlua::Result<mlua::LuaString> {
    let text = bytes_at(lua, args, 0, "pack")?;
    let mut format = Format::new(lua, "pack", &text);
    let mut out = Vec::new();
    // Redis reads a missing value as nil here.
    let mut args = args.clone();
    args.push_back(Value::Nil);
    let mut arg = 1;
    while let Some((option, size)) = format.next()? {
        out.resize(out.len() + format.padding(option, size, out.len()), 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = number_at(lua, &args, arg, "pack")?;
                whole(&mut out, number, size, format.big);
            }
            b'x' => out.push(0),
            b'f' => {
                let number = number_at(lua, &args, arg, "pack")? as f32;
                ordered(&mut out, number.to_le_bytes(), format.big);
            }
            b'd' => {
                let number = number_at(lua, &args, arg, "pack")?;
                ordered(&mut out, number.to_le_bytes(), format.big);
            }
            b'c' | b's' => {
                let value = bytes_at(lua, &args, arg, "pack")?;
                let length = if size == 0 { value.len() } else { size };
                let Some(value) = value.get(..length) else {
                    return Err(bad_argument(lua, arg + 2, "pack", "string too short"));
                };
                out.extend_from_slice(value);
                if option == b's' {
                    out.push(0);
                }
            }
            other => {
                format.control(other)?;
                continue;
            }
        }
        arg += usize::from(option != b'x');
        if out.len() > most {
            return Err(raise::error(lua, "packed value too long"));
        }
    }
    lua.create_string(out)
}

fn ordered<const N: usize>(out: &mut Vec<u8>, mut little: [u8; N], big: bool) {
    if big {
        little.reverse();
    }
    out.extend_from_slice(&little);
}

/// Writes a whole number in `size` bytes, with the sign carried into bytes past the eighth.
fn whole(out: &mut Vec<u8>, number: f64, size: usize, big: bool) {
    let bits = if number < 0.0 { number as i64 as u64 } else { number as u64 };
    let start = out.len();
    for i in 0..size {
        out.push(if i < 8 { (bits >> (8 * i)) as u8 } else { 0 });
    }
    if big {
        out[start..].reverse();
    }
}

/// Reads a whole number.
fn read_whole(bytes: &[u8], big: bool, signed: bool) -> f64 {
    let byte = |i: usize| if big { bytes[bytes.len() - 1 - i] } else { bytes[i] };
    let bits = (0..bytes.len().min(8)).fold(0u64, |sum, i| sum | u64::from(byte(i)) << (8 * i));
    if !signed {
        return bits as f64;
    }
    let unused = 64 - 8 * bytes.len().min(8) as u32;
    if unused == 64 { 0.0 } else { ((bits << unused) as i64 >> unused) as f64 }
}

fn unpack(lua: &Lua, args: &MultiValue) -> mlua::Result<Variadic<Value>> {
    let text = bytes_at(lua, args, 0, "unpack")?;
    let data = bytes_at(lua, args, 1, "unpack")?;
    let start = number_or(lua, args, 2, "unpack", 1.0)?;
    if start < 1.0 {
        return Err(bad_argument(lua, 3, "unpack", "offset must be 1 or greater"));
    }
    let mut at = start as usize - 1;
    let mut format = Format::new(lua, "unpack", &text);
    let mut values = Variadic::new();
    while let Some((option, size)) = format.next()? {
        at = at.saturating_add(format.padding(option, size, at));
        let Some(rest) = data.get(at..).filter(|rest| size <= rest.len()) else {
            return Err(bad_argument(lua, 2, "unpack", "data string too short"));
        };
        if values.len() > ANSWERS {
            return Err(raise::error(lua, "too many results"));
        }
        let mut length = size;
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let signed = option.is_ascii_lowercase();
                values.push(Value::Number(read_whole(&rest[..size], format.big, signed)));
            }
            b'x' => {}
            b'f' | b'd' => values.push(Value::Number(float(&rest[..size], format.big))),
            b'c' => {
                if size == 0 {
                    length = previous_size(lua, &mut values)?;
                }
                let Some(value) = rest.get(..length) else {
                    return Err(bad_argument(lua, 2, "unpack", "data string too short"));
                };
                values.push(Value::String(lua.create_string(value)?));
            }
            b's' => {
                let Some(end) = rest.iter().position(|byte| *byte == 0) else {
                    return Err(raise::error(lua, "unfinished string in data"));
                };
                values.push(Value::String(lua.create_string(&rest[..end])?));
                length = end + 1;
            }
            other => format.control(other)?,
        }
        at += length;
    }
    values.push(Value::Integer(at as i64 + 1));
    Ok(values)
}

fn float(bytes: &[u8], big: bool) -> f64 {
    let ordered = |i: usize| if big { bytes[bytes.len() - 1 - i] } else { bytes[i] };
    if bytes.len() == 4 {
        f32::from_le_bytes(std::array::from_fn(ordered)).into()
    } else {
        f64::from_le_bytes(std::array::from_fn(ordered))
    }
}

/// The size that the value before `c0` tells.
fn previous_size(lua: &Lua, values: &mut Variadic<Value>) -> mlua::Result<usize> {
    let size = match values.pop() {
        Some(Value::Number(size)) => size,
        Some(Value::Integer(size)) => size as f64,
        _ => return Err(raise::error(lua, "format 'c0' needs a previous size")),
    };
    if size < 0.0 {
        return Err(raise::error(lua, "format 'c0' needs a previous size"));
    }
    Ok(size as usize)
}

fn size(lua: &Lua, args: &MultiValue) -> mlua::Result<usize> {
    let text = bytes_at(lua, args, 0, "size")?;
    let mut format = Format::new(lua, "size", &text);
    let mut length = 0;
    while let Some((option, size)) = format.next()? {
        length += format.padding(option, size, length);
        match option {
            b's' => return Err(bad_argument(lua, 1, "size", "option 's' has no fixed size")),
            b'c' if size == 0 => {
                return Err(bad_argument(lua, 1, "size", "option 'c0' has no fixed size"));
            }
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' | b'x' | b'f' | b'd'
            | b'c' => {}
            other => format.control(other)?,
        }
        length += size;
        if length > i32::MAX as usize {
            return Err(raise::error(lua, "structure too large"));
        }
    }
    Ok(length)
}
