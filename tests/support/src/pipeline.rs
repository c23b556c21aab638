//! What a client sends: frontend messages, built by hand so that a test can also build wrong ones.
//! Source: PostgreSQL documentation, "Message Formats".

/// Bytes of frontend messages, in the order they were added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pipeline {
    bytes: Vec<u8>,
}

/// An empty one: `pipeline().parse("", "SELECT 1", &[]).bind("", "", &[]).execute("").sync()`.
pub fn pipeline() -> Pipeline {
    Pipeline::default()
}

/// What Describe and Close are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of<'a> {
    Statement(&'a str),
    Portal(&'a str),
}

impl Pipeline {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Any message: its type and body, with the right length.
    pub fn message(mut self, tag: u8, body: &[u8]) -> Pipeline {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        self.bytes.extend_from_slice(body);
        self
    }

    /// Bytes as they are, framed or not.
    pub fn raw(mut self, bytes: &[u8]) -> Pipeline {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn query(self, sql: &str) -> Pipeline {
        self.message(b'Q', &text(sql))
    }

    /// `types` are OIDs of parameter types; 0 leaves one to the server.
    pub fn parse(self, statement: &str, sql: &str, types: &[u32]) -> Pipeline {
        let mut body = [text(statement), text(sql)].concat();
        body.extend(count(types.len()));
        body.extend(types.iter().flat_map(|oid| oid.to_be_bytes()));
        self.message(b'P', &body)
    }

    /// Parameters and results in text format.
    pub fn bind(self, portal: &str, statement: &str, parameters: &[Option<&str>]) -> Pipeline {
        let parameters: Vec<_> = parameters.iter().map(|value| value.map(str::as_bytes)).collect();
        self.bind_formats(portal, statement, &[], &parameters, &[])
    }

    /// Formats as in the protocol: none for all text, one for all, or one each; 0 is text and 1 is binary.
    pub fn bind_formats(
        self,
        portal: &str,
        statement: &str,
        parameter_formats: &[u16],
        parameters: &[Option<&[u8]>],
        result_formats: &[u16],
    ) -> Pipeline {
        let mut body = [text(portal), text(statement)].concat();
        body.extend(formats(parameter_formats));
        body.extend(count(parameters.len()));
        for parameter in parameters {
            body.extend(value(*parameter));
        }
        body.extend(formats(result_formats));
        self.message(b'B', &body)
    }

    pub fn describe(self, of: Of<'_>) -> Pipeline {
        self.message(b'D', &named(of))
    }

    /// All rows.
    pub fn execute(self, portal: &str) -> Pipeline {
        self.execute_rows(portal, 0)
    }

    /// At most `rows`; 0 means all.
    pub fn execute_rows(self, portal: &str, rows: u32) -> Pipeline {
        let body = [text(portal), rows.to_be_bytes().to_vec()].concat();
        self.message(b'E', &body)
    }

    pub fn close(self, of: Of<'_>) -> Pipeline {
        self.message(b'C', &named(of))
    }

    pub fn sync(self) -> Pipeline {
        self.message(b'S', b"")
    }

    pub fn flush(self) -> Pipeline {
        self.message(b'H', b"")
    }

    pub fn copy_data(self, data: &[u8]) -> Pipeline {
        self.message(b'd', data)
    }

    pub fn copy_done(self) -> Pipeline {
        self.message(b'c', b"")
    }

    pub fn copy_fail(self, reason: &str) -> Pipeline {
        self.message(b'f', &text(reason))
    }

    /// Arguments and result in text format.
    pub fn function_call(self, oid: u32, arguments: &[Option<&[u8]>]) -> Pipeline {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend(formats(&[]));
        body.extend(count(arguments.len()));
        for argument in arguments {
            body.extend(value(*argument));
        }
        body.extend(0u16.to_be_bytes());
        self.message(b'F', &body)
    }

    pub fn terminate(self) -> Pipeline {
        self.message(b'X', b"")
    }
}

impl AsRef<[u8]> for Pipeline {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A StartupMessage: no type byte, the protocol's number, pairs.
pub fn startup(protocol: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = protocol.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(text(name));
        body.extend(text(value));
    }
    body.push(0);
    untyped(&body)
}

/// A message of the start-up phase: length and body.
pub fn untyped(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&length.to_be_bytes(), body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

fn count(count: usize) -> [u8; 2] {
    u16::try_from(count).unwrap().to_be_bytes()
}

fn formats(formats: &[u16]) -> Vec<u8> {
    let codes = formats.iter().flat_map(|format| format.to_be_bytes());
    count(formats.len()).into_iter().chain(codes).collect()
}

fn value(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        None => (-1i32).to_be_bytes().to_vec(),
        Some(bytes) => [&i32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat(),
    }
}

fn named(of: Of<'_>) -> Vec<u8> {
    match of {
        Of::Statement(name) => [b"S".to_vec(), text(name)].concat(),
        Of::Portal(name) => [b"P".to_vec(), text(name)].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parse_is_laid_out_as_documented() {
        let parse = pipeline().parse("s", "SELECT $1", &[23]);
        assert_eq!(parse.bytes(), b"P\0\0\0\x16s\0SELECT $1\0\0\x01\0\0\0\x17");
    }

    #[test]
    fn a_null_has_length_minus_one() {
        let bind = pipeline().bind("", "", &[None]);
        assert_eq!(bind.bytes(), b"B\0\0\0\x10\0\0\0\0\0\x01\xff\xff\xff\xff\0\0");
    }
}
