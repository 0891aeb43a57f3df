//! Reads test vectors for the tests of this room: records of `name: value` lines, with blank lines
//! between them. The files are in tests/vectors. They are never changed, only added to.

/// One record.
pub(super) struct Vector(Vec<(&'static str, &'static str)>);

impl Vector {
    pub(super) fn text(&self, name: &str) -> &'static str {
        let field = self.0.iter().find(|(key, _)| *key == name);
        field.unwrap_or_else(|| panic!("no field {name}")).1
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let hex = self.text(name);
        assert!(hex.len().is_multiple_of(2), "{name}: half a byte");
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
            .collect()
    }

    pub(super) fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.bytes(name).try_into().unwrap_or_else(|_| panic!("{name}: not {N} bytes"))
    }

    pub(super) fn number(&self, name: &str) -> u32 {
        self.text(name).parse().expect("a number")
    }
}

pub(super) fn read(file: &'static str) -> Vec<Vector> {
    let record = |text: &'static str| {
        text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k, v.trim()))
    };
    file.trim().split("\n\n").map(|text| Vector(record(text).collect())).collect()
}
