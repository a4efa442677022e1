//! Requests out of the bytes of a client.
//!
//! The parser remembers how far it has come, so that an argument which arrives in a thousand pieces
//! costs as much as one that arrives whole. Lengths that a client claims are checked against the
//! limits and then believed only as far as bytes have come: nothing is allocated ahead of them.
//! Errors have the texts of Redis 7.0; after one the connection is to be closed, since nobody knows
//! where the next request begins.

use std::ops::Range;

use super::inline;

/// Arguments of a client that has not said who it is.
const STRANGER_ARGUMENTS: i64 = 10;
/// Bytes in an argument of such a client.
const STRANGER_BYTES: i64 = 16 << 10;
/// Room for this many arguments, and bytes of words, is kept from one request to the next.
const KEPT: usize = 1 << 10;
/// Arguments that need no list of their own.
const FEW: usize = 8;

/// How much a single request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Arguments, the command's name included.
    pub arguments_max: u32,
    /// Bytes in one argument.
    pub argument_bytes: u32,
    /// Bytes in the whole request, its lengths and line ends included.
    pub request_bytes: u32,
    /// Bytes in a line: an inline request, or a length.
    pub inline_bytes: u32,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            arguments_max: 1 << 20,
            argument_bytes: 16 << 20,
            request_bytes: 64 << 20,
            inline_bytes: 64 << 10,
        }
    }
}

/// Bytes that are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number of arguments is no number, or too big.
    MultibulkLength,
    /// More arguments than a client may send before it says who it is.
    UnauthenticatedMultibulk,
    /// An argument begins with something else.
    ExpectedDollar(u8),
    /// The length of an argument is no number, or too big.
    BulkLength,
    /// A longer argument than a client may send before it says who it is.
    UnauthenticatedBulk,
    /// A number of arguments that does not end.
    BigMultibulkCount,
    /// A length that does not end.
    BigBulkCount,
    /// A line that does not end.
    BigInline,
    /// Quotes of an inline request are not in balance.
    UnbalancedQuotes,
    /// All arguments together are too big.
    BigRequest,
}

impl ProtocolError {
    /// What the client is told, as the text of an error reply, before the connection is closed.
    pub fn text(self) -> String {
        let why = match self {
            Self::MultibulkLength => "invalid multibulk length",
            Self::UnauthenticatedMultibulk => "unauthenticated multibulk length",
            Self::ExpectedDollar(got) => {
                return format!("ERR Protocol error: expected '$', got '{}'", char::from(got));
            }
            Self::BulkLength => "invalid bulk length",
            Self::UnauthenticatedBulk => "unauthenticated bulk length",
            Self::BigMultibulkCount => "too big mbulk count string",
            Self::BigBulkCount => "too big bulk count string",
            Self::BigInline => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::BigRequest => "too big request",
        };
        format!("ERR Protocol error: {why}")
    }
}

/// The arguments of a request, wherever they are: the first is the command's name.
pub trait Arguments {
    /// How many there are.
    fn count(&self) -> usize;
    /// One of them; empty if there are fewer.
    fn argument(&self, index: usize) -> &[u8];
}

impl<T: AsRef<[u8]>> Arguments for [T] {
    fn count(&self) -> usize {
        self.len()
    }

    fn argument(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], AsRef::as_ref)
    }
}

impl<T: AsRef<[u8]>> Arguments for Vec<T> {
    fn count(&self) -> usize {
        self.len()
    }

    fn argument(&self, index: usize) -> &[u8] {
        self.as_slice().argument(index)
    }
}

impl Arguments for Request<'_> {
    fn count(&self) -> usize {
        self.ranges.len()
    }

    fn argument(&self, index: usize) -> &[u8] {
        self.get(index).unwrap_or(&[])
    }
}

/// A whole request. It has at least one argument.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    bytes: &'a [u8],
    ranges: &'a [(u32, u32)],
    used: usize,
    inline: bool,
    /// Where `bytes` begin in the caller's buffer.
    base: usize,
}

impl<'a> Request<'a> {
    /// An argument.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let (start, end) = *self.ranges.get(index)?;
        self.bytes.get(start as usize..end as usize)
    }

    /// The arguments in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.ranges.iter().map(move |(start, end)| &bytes[*start as usize..*end as usize])
    }

    /// Does something with all arguments in a row. A list is made only when they are many.
    pub fn with_all<R>(&self, with: impl FnOnce(&[&'a [u8]]) -> R) -> R {
        let mut few = [&[][..]; FEW];
        match few.get_mut(..self.ranges.len()) {
            None => with(&self.iter().collect::<Vec<_>>()),
            Some(few) => {
                few.iter_mut().zip(self.iter()).for_each(|(place, argument)| *place = argument);
                with(few)
            }
        }
    }

    /// Where an argument stands in the bytes that the parser was handed, for who wants to keep a
    /// part of that buffer. `None` for an inline request, whose words are without their quotes.
    pub fn range(&self, index: usize) -> Option<Range<usize>> {
        let (start, end) = *self.ranges.get(index)?;
        let place = self.base + start as usize..self.base + end as usize;
        (!self.inline).then_some(place)
    }

    /// How many bytes of the buffer are done with once the request is.
    pub fn used(&self) -> usize {
        self.used
    }
}

/// What the parser has found.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A request.
    Request(Request<'a>),
    /// No whole request yet.
    More {
        /// Bytes at the front that asked for nothing, such as empty lines: to be dropped now.
        used: usize,
        /// At least so many more bytes are needed. A claim of the client: reserve no memory for it.
        wanted: usize,
    },
}

/// Reads one client's requests.
///
/// The caller keeps the bytes: every call is handed all that are not done with, the same as before
/// and what has come since, and the caller drops from the front as many as the answer says.
#[derive(Debug)]
pub struct Parser {
    limits: RequestLimits,
    stranger: bool,
    /// All before this is understood.
    at: usize,
    /// There is no end of line between `at` and here.
    scanned: usize,
    /// Arguments of the request that have not come; 0 between requests.
    missing: u32,
    /// The length of the argument at `at`, once read.
    length: Option<u32>,
    ranges: Vec<(u32, u32)>,
    /// The words of an inline request.
    words: Vec<u8>,
}

/// Like `?` on an [`Option`] within a [`Result`]: `None` says that more bytes are needed.
macro_rules! some {
    ($found:expr) => {
        match $found {
            Some(found) => found,
            None => return Ok(None),
        }
    };
}

impl Parser {
    /// A parser for a new connection. `stranger`: users are asked for their password, and this one
    /// has not been yet.
    pub fn new(limits: RequestLimits, stranger: bool) -> Self {
        let (ranges, words) = (Vec::new(), Vec::new());
        let (at, scanned, missing, length) = (0, 0, 0, None);
        Self { limits, stranger, at, scanned, missing, length, ranges, words }
    }

    /// From now on the client is, or is no more, one that has not said who it is.
    pub fn set_stranger(&mut self, stranger: bool) {
        self.stranger = stranger;
    }

    /// Finds the next request in `input`.
    pub fn next<'a>(&'a mut self, input: &'a [u8]) -> Result<Parsed<'a>, ProtocolError> {
        // What asks for nothing goes first, so that offsets count from the request's first byte.
        let mut base = 0;
        loop {
            let rest = input.get(base..).unwrap_or(&[]);
            let inline = self.missing == 0 && rest.first().is_some_and(|byte| *byte != b'*');
            let found = match inline {
                true => self.inline(rest)?,
                false => self.array(rest)?,
            };
            let Some(end) = found else {
                return Ok(Parsed::More { used: base, wanted: self.wanted(rest.len()) });
            };
            (self.at, self.scanned) = (0, 0);
            if self.ranges.is_empty() {
                base += end;
                continue;
            }
            let bytes = if inline { &self.words[..] } else { rest };
            let ranges = &self.ranges;
            return Ok(Parsed::Request(Request { bytes, ranges, used: base + end, inline, base }));
        }
    }

    /// How many bytes beyond `have` could bring the parser on.
    fn wanted(&self, have: usize) -> usize {
        let end = self.length.map_or(0, |length| self.at + length as usize + 2);
        end.saturating_sub(have).max(1)
    }

    /// A request as an array; where it ends, if it is whole.
    fn array(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if self.missing == 0 {
            if input.is_empty() {
                return Ok(None);
            }
            self.begin();
            let count = some!(self.number(input, ProtocolError::BigMultibulkCount)?);
            let count = count.ok_or(ProtocolError::MultibulkLength)?;
            if count > i64::from(self.limits.arguments_max) {
                return Err(ProtocolError::MultibulkLength);
            }
            if count > STRANGER_ARGUMENTS && self.stranger {
                return Err(ProtocolError::UnauthenticatedMultibulk);
            }
            if count <= 0 {
                return Ok(Some(self.at));
            }
            self.missing = count as u32;
        }
        while self.missing > 0 {
            let length = match self.length {
                Some(length) => length,
                None => some!(self.bulk_length(input)?),
            };
            self.length = Some(length);
            let end = self.at + length as usize;
            // As in Redis, what stands in place of the line end is not looked at.
            if input.len() < end + 2 {
                return Ok(None);
            }
            self.ranges.push((self.at as u32, end as u32));
            self.length = None;
            self.missing -= 1;
            self.at = end + 2;
            self.scanned = self.at;
        }
        Ok(Some(self.at))
    }

    fn bulk_length(&mut self, input: &[u8]) -> Result<Option<u32>, ProtocolError> {
        let mark = input.get(self.at).copied();
        let length = some!(self.number(input, ProtocolError::BigBulkCount)?);
        if let Some(other) = mark.filter(|mark| *mark != b'$') {
            return Err(ProtocolError::ExpectedDollar(other));
        }
        let length = length.ok_or(ProtocolError::BulkLength)?;
        if length < 0 || length > i64::from(self.limits.argument_bytes) {
            return Err(ProtocolError::BulkLength);
        }
        if length > STRANGER_BYTES && self.stranger {
            return Err(ProtocolError::UnauthenticatedBulk);
        }
        if self.at as u64 + length as u64 + 2 > u64::from(self.limits.request_bytes) {
            return Err(ProtocolError::BigRequest);
        }
        Ok(Some(length as u32))
    }

    /// The number behind the mark at `at`, and past its line: `None` while the line has not ended,
    /// `Some(None)` if it is no number.
    fn number(
        &mut self,
        input: &[u8],
        endless: ProtocolError,
    ) -> Result<Option<Option<i64>>, ProtocolError> {
        // Nearly every length is one or two digits.
        if let Some([_, digit @ b'0'..=b'9', b'\r', _, ..]) = input.get(self.at..) {
            (self.at, self.scanned) = (self.at + 4, self.at + 4);
            return Ok(Some(Some(i64::from(digit - b'0'))));
        }
        if let Some([_, ten @ b'1'..=b'9', one @ b'0'..=b'9', b'\r', _, ..]) = input.get(self.at..)
        {
            (self.at, self.scanned) = (self.at + 5, self.at + 5);
            return Ok(Some(Some(i64::from((ten - b'0') * 10 + one - b'0'))));
        }
        let end = some!(self.line_end(input, b'\r', endless)?);
        if input.len() < end + 2 {
            return Ok(None);
        }
        let number = input.get(self.at + 1..end).and_then(whole_number);
        (self.at, self.scanned) = (end + 2, end + 2);
        Ok(Some(number))
    }

    /// Where the line at `at` ends.
    fn line_end(
        &mut self,
        input: &[u8],
        mark: u8,
        endless: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let limit = self.limits.inline_bytes as usize;
        let from = self.scanned.max(self.at);
        let rest = input.get(from..).unwrap_or(&[]);
        // No further than a line may be long, so that one that is too long costs no more than that.
        let rest = &rest[..rest.len().min((self.at + limit + 1).saturating_sub(from))];
        if let Some(place) = rest.iter().position(|byte| *byte == mark) {
            self.scanned = from + place;
            return Ok(Some(from + place));
        }
        self.scanned = from + rest.len();
        if self.scanned - self.at > limit { Err(endless) } else { Ok(None) }
    }

    /// A request as a line; where it ends, if it is whole.
    fn inline(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        self.begin();
        let end = some!(self.line_end(input, b'\n', ProtocolError::BigInline)?);
        let line = &input[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match inline::split(line, &mut self.words, &mut self.ranges) {
            true => Ok(Some(end + 1)),
            false => Err(ProtocolError::UnbalancedQuotes),
        }
    }

    /// Forgets the request before, and the room that it took if that was much.
    fn begin(&mut self) {
        self.ranges.clear();
        self.words.clear();
        if self.ranges.capacity() > KEPT {
            self.ranges.shrink_to(KEPT);
        }
        if self.words.capacity() > KEPT {
            self.words.shrink_to(KEPT);
        }
    }

    /// Bytes of memory that the parser holds, for tests of its bounds.
    #[doc(hidden)]
    pub fn held(&self) -> usize {
        self.ranges.capacity() * size_of::<(u32, u32)>() + self.words.capacity()
    }
}

/// A number as Redis reads lengths: no sign but a minus, no zero in front.
fn whole_number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits[0] == b'0' && text.len() > 1 {
        return None;
    }
    let mut number = 0i64;
    for byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(byte - b'0');
        let digit = if negative { -digit } else { digit };
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    Some(number)
}
