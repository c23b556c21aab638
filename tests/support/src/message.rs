//! What a server sends: a message and its fields, and how it is written in a transcript.
//! Source: PostgreSQL documentation, "Message Formats" and "Error and Notice Message Fields".

/// A backend message: its type byte and its body without the length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl Message {
    /// A field of an ErrorResponse or NoticeResponse: `C` is the SQLSTATE, `M` the message, `H` the hint.
    pub fn field(&self, code: u8) -> Option<String> {
        assert!(matches!(self.tag, b'E' | b'N'), "{self:?} has no error fields");
        self.body
            .split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&code))
            .map(|field| lossy(&field[1..]))
    }

    /// The SQLSTATE of an error or notice.
    pub fn sqlstate(&self) -> String {
        self.field(b'C').unwrap_or_default()
    }

    /// `I`, `T` or `E` of a ReadyForQuery.
    pub fn status(&self) -> char {
        assert_eq!(self.tag, b'Z', "{self:?} has no transaction status");
        char::from(self.body[0])
    }

    /// The columns of a DataRow, as text.
    pub fn row(&self) -> Vec<Option<String>> {
        assert_eq!(self.tag, b'D', "{self:?} is no row");
        let mut reader = Reader(&self.body);
        (0..reader.u16()).map(|_| reader.value()).collect()
    }

    /// The channel and the payload of a NotificationResponse.
    pub fn notification(&self) -> (String, String) {
        assert_eq!(self.tag, b'A', "{self:?} is no notification");
        let mut reader = Reader(&self.body);
        reader.u32(); // the notifying process
        (reader.string(), reader.string())
    }

    /// The text of a CommandComplete, or of any message that is one string.
    pub fn text(&self) -> String {
        Reader(&self.body).string()
    }

    /// One line with the fields that matter to a client; what differs between runs (process ids, OIDs of tables, file
    /// and line of an error) is left out.
    pub fn describe(&self) -> String {
        let mut reader = Reader(&self.body);
        let fields = match self.tag {
            b'C' => self.text(),
            b'Z' => self.status().to_string(),
            b'S' => format!("{}={}", reader.string(), reader.string()),
            b'D' => {
                let columns = self.row().into_iter();
                columns
                    .map(|column| column.unwrap_or("NULL".to_owned()))
                    .collect::<Vec<_>>()
                    .join("|")
            }
            b'T' => reader.columns(),
            b't' => {
                (0..reader.u16()).map(|_| reader.u32().to_string()).collect::<Vec<_>>().join(" ")
            }
            b'E' | b'N' => [b'V', b'C', b'M', b'D', b'H', b'P', b'n']
                .iter()
                .filter_map(|code| self.field(*code))
                .collect::<Vec<_>>()
                .join(" / "),
            b'A' => {
                let (channel, payload) = self.notification();
                format!("{channel} {payload:?}")
            }
            b'd' => lossy(&self.body),
            b'K' | b'R' => String::new(),
            _ => self.body.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        format!("{} {fields}", char::from(self.tag)).trim_end().to_owned()
    }
}

/// Reads a body from the front; panics at a body that is too short.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, length: usize) -> &[u8] {
        let (front, rest) = self.0.split_at(length);
        self.0 = rest;
        front
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    fn string(&mut self) -> String {
        let length = self.0.iter().position(|byte| *byte == 0).expect("a string without its end");
        let text = lossy(self.take(length));
        self.take(1);
        text
    }

    fn value(&mut self) -> Option<String> {
        let length = self.u32();
        (length != u32::MAX).then(|| lossy(self.take(usize::try_from(length).unwrap())))
    }

    /// `name:type:format` of each column.
    fn columns(&mut self) -> String {
        let columns = (0..self.u16()).map(|_| {
            let name = self.string();
            self.take(6); // table and column number
            let oid = self.u32();
            self.take(6); // size and modifier
            format!("{name}:{oid}:{}", self.u16())
        });
        columns.collect::<Vec<_>>().join(" ")
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
