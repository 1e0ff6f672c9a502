//! Bodies of answers: how long they are, and chunked ones put together.

use httparse::Header;

/// An answer that is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Framing {
    /// Returns the framing of an answer with these headers.
    pub(super) fn of(status: u16, headers: &[Header<'_>]) -> Result<Self, Malformed> {
        if matches!(status, 204 | 304) {
            return Ok(Self::Length(0));
        }
        let mut framing = Self::Close;
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).ok();
                let length = text.and_then(|text| text.trim().parse().ok());
                return Ok(Self::Length(length.ok_or(Malformed("an unreadable Content-Length"))?));
            }
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Self::Chunked;
            }
        }
        Ok(framing)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the line before a chunk; extensions are passed over.
    Size {
        so_far: usize,
        is_extension: bool,
    },
    /// In a chunk of which so much is to come.
    Data(usize),
    /// At the line end behind a chunk.
    Behind,
    /// Behind the last chunk; trailers are passed over. Holds the length of the
    /// line so far.
    Trailer(usize),
    Over,
}

/// Takes the chunks of a body apart, wherever reads cut them.
#[derive(Debug)]
pub(super) struct Dechunker(State);

impl Default for Dechunker {
    fn default() -> Self {
        Self(State::Size { so_far: 0, is_extension: false })
    }
}

impl Dechunker {
    /// Appends what `input` holds of the body to `output`.
    pub(super) fn feed(&mut self, mut input: &[u8], output: &mut Vec<u8>) -> Result<(), Malformed> {
        while let Some((&byte, rest)) = input.split_first() {
            if let State::Data(left) = self.0 {
                let (data, behind) = input.split_at(left.min(input.len()));
                output.extend_from_slice(data);
                input = behind;
                let left = left - data.len();
                self.0 = if left == 0 { State::Behind } else { State::Data(left) };
                continue;
            }
            self.0 = self.0.after(byte)?;
            input = rest;
        }
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        self.0 == State::Over
    }
}

impl State {
    /// Returns the state behind a byte that is not data.
    fn after(self, byte: u8) -> Result<Self, Malformed> {
        Ok(match (self, byte) {
            (Self::Size { so_far: 0, .. }, b'\n') => Self::Trailer(0),
            (Self::Size { so_far, .. }, b'\n') => Self::Data(so_far),
            (Self::Size { so_far, is_extension: true }, _)
            | (Self::Size { so_far, .. }, b'\r' | b';' | b' ' | b'\t') => {
                Self::Size { so_far, is_extension: true }
            }
            (Self::Size { so_far, .. }, digit) => {
                let digit =
                    char::from(digit).to_digit(16).ok_or(Malformed("a broken chunk size"))?;
                let longer =
                    so_far.checked_mul(16).and_then(|size| size.checked_add(digit as usize));
                let so_far = longer.ok_or(Malformed("a chunk that is too large"))?;
                Self::Size { so_far, is_extension: false }
            }
            (Self::Behind, b'\r') => Self::Behind,
            (Self::Behind, b'\n') => Self::Size { so_far: 0, is_extension: false },
            (Self::Behind | Self::Data(_), _) => return Err(Malformed("a chunk without its end")),
            (Self::Trailer(0), b'\n') => Self::Over,
            (Self::Trailer(_), b'\n') => Self::Trailer(0),
            (Self::Trailer(length), b'\r') => Self::Trailer(length),
            (Self::Trailer(length), _) => Self::Trailer(length + 1),
            (Self::Over, _) => return Err(Malformed("bytes behind the end of an answer")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"5\r\nhello\r\n0C;x=y\r\n brave\nworld\r\n0\r\nA: b\r\n\r\n";

    #[test]
    fn a_body_is_put_together_wherever_it_is_cut() {
        for cut in 0..BODY.len() {
            for second in cut..BODY.len() {
                let (mut dechunker, mut body) = (Dechunker::default(), Vec::new());
                for part in [&BODY[..cut], &BODY[cut..second], &BODY[second..]] {
                    dechunker.feed(part, &mut body).unwrap();
                }
                assert_eq!(body, b"hello brave\nworld");
                assert!(dechunker.is_over());
            }
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for wrong in [&b"x\r\n"[..], b"1\r\nab", b"fffffffffffffffff\r\n", b"0\r\n\r\nx"] {
            assert!(Dechunker::default().feed(wrong, &mut Vec::new()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_framing_follows_from_status_and_headers() {
        let header = |name, value| [Header { name, value }];
        let length = header("content-LENGTH", b"12");
        assert_eq!(Framing::of(200, &length), Ok(Framing::Length(12)));
        assert_eq!(Framing::of(204, &[]), Ok(Framing::Length(0)));
        assert_eq!(Framing::of(200, &[]), Ok(Framing::Close));
        let chunked = header("Transfer-Encoding", b"chunked");
        assert_eq!(Framing::of(200, &chunked), Ok(Framing::Chunked));
        assert!(Framing::of(200, &header("Content-Length", b"-1")).is_err());
    }
}
