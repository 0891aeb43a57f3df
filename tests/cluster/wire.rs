//! A client that speaks PostgreSQL's protocol byte by byte. It sends what drivers do not, such as
//! pipelines with errors and function calls by number. It hears every field of every message.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use crate::server::Server;

pub(crate) struct Wire(UnixStream);

/// What the server said until it was ready again: its errors and notices, every byte of them.
#[derive(Default)]
pub(crate) struct Said {
    pub failed: bool,
    pub messages: Vec<u8>,
    pub rows: Vec<u8>,
}

impl Said {
    pub(crate) fn holds(&self, text: &str) -> bool {
        self.messages.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

impl Wire {
    pub(crate) fn connect(server: &Server, application: &str) -> Wire {
        let path = server.socket_dir().join(".s.PGSQL.5432");
        let mut wire = Wire(UnixStream::connect(path).unwrap());
        let mut body = 196_608u32.to_be_bytes().to_vec();
        for text in
            ["user", "postgres", "database", "postgres", "application_name", application, ""]
        {
            body.extend(text.as_bytes());
            body.push(0);
        }
        let length = (body.len() as u32 + 4).to_be_bytes();
        wire.0.write_all(&[length.to_vec(), body].concat()).unwrap();
        wire.hear("");
        wire
    }

    pub(crate) fn query(&mut self, sql: &str) -> Said {
        self.copy(sql, "")
    }

    /// A statement that asks for rows of COPY gets these.
    pub(crate) fn copy(&mut self, sql: &str, rows: &str) -> Said {
        self.0.write_all(&message(b'Q', &[sql.as_bytes(), b"\0"])).unwrap();
        self.hear(rows)
    }

    /// Statements of the extended protocol, each with one parameter of unknown type, in one piece.
    pub(crate) fn pipeline(&mut self, statements: &[(String, String)]) -> Said {
        let mut sent = vec![];
        for (sql, parameter) in statements {
            let count = u16::from(sql.contains("$1")).to_be_bytes();
            let length = (parameter.len() as u32).to_be_bytes();
            let value: [&[u8]; 2] =
                if count == [0, 0] { [b"", b""] } else { [&length, parameter.as_bytes()] };
            sent.extend(message(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"]));
            sent.extend(message(b'B', &[b"\0\0\0\0", &count, value[0], value[1], b"\0\0"]));
            sent.extend(message(b'E', &[b"\0\0\0\0\0"]));
        }
        sent.extend(message(b'S', &[]));
        self.0.write_all(&sent).unwrap();
        self.hear("")
    }

    /// Calls a function by its number, with texts.
    pub(crate) fn call(&mut self, function: u32, arguments: &[&str]) -> Said {
        let count = (arguments.len() as u16).to_be_bytes();
        let mut body = [&function.to_be_bytes()[..], b"\0\0", &count].concat();
        for argument in arguments {
            body.extend((argument.len() as u32).to_be_bytes());
            body.extend(argument.as_bytes());
        }
        self.0.write_all(&message(b'F', &[&body, b"\0\0"])).unwrap();
        self.hear("")
    }

    fn hear(&mut self, rows: &str) -> Said {
        let mut said = Said::default();
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).unwrap();
            match head[0] {
                b'E' | b'N' => {
                    said.failed |= head[0] == b'E';
                    said.messages.extend(body);
                }
                b'D' => said.rows.extend(body),
                b'G' => {
                    let data = message(b'd', &[rows.as_bytes()]);
                    self.0.write_all(&[data, message(b'c', &[])].concat()).unwrap();
                }
                b'Z' => return said,
                _ => (),
            }
        }
    }
}

fn message(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat()
}
