//! Memory for long texts. Callers choose how long a text is, and a failed allocation in Rust ends
//! the whole server. So what grows with a text is asked for before, and a refusal is an answer.

/// There is no memory for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

/// From this size on, a margin must be left over.
const LONG: usize = 1 << 20;
/// What must be left over for everything small, which is not asked for.
const MARGIN: usize = 16 << 20;

/// Whether so many bytes can be had now, and a margin beside them.
pub fn ask(bytes: usize) -> Result<(), OutOfMemory> {
    let mut there: Vec<u8> = Vec::new();
    there.try_reserve_exact(bytes.saturating_add(MARGIN)).map_err(|_| OutOfMemory)?;
    // Otherwise the compiler leaves out an allocation that nobody uses.
    std::hint::black_box(&there);
    Ok(())
}

/// A copy of a text.
pub fn copied(text: &[u8]) -> Result<Vec<u8>, OutOfMemory> {
    let mut copy = Vec::new();
    append(&mut copy, text)?;
    Ok(copy)
}

/// Appends to a text that grows.
pub(super) fn append(text: &mut Vec<u8>, bytes: &[u8]) -> Result<(), OutOfMemory> {
    if text.capacity() - text.len() < bytes.len() {
        let more = bytes.len().max(text.len() / 2);
        if text.len() + more >= LONG {
            // It may be moved, and then both lie in memory for a moment.
            ask(text.len() + more)?;
        }
        text.try_reserve_exact(more).map_err(|_| OutOfMemory)?;
    }
    text.extend_from_slice(bytes);
    Ok(())
}

/// Appends to a list that grows with a text.
pub(super) fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), OutOfMemory> {
    list.try_reserve(1).map_err(|_| OutOfMemory)?;
    list.push(item);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_an_answer() {
        assert_eq!(ask(usize::MAX), Err(OutOfMemory));
        assert_eq!(ask(1 << 62), Err(OutOfMemory));
        assert_eq!(ask(1 << 20), Ok(()));
    }

    #[test]
    fn a_text_grows_by_parts() {
        let mut text = copied(b"a").expect("memory");
        for _ in 0..3 << 20 {
            append(&mut text, b"bc").expect("memory");
        }
        assert_eq!(
            (text.len(), text.first(), text.last()),
            (1 + (6 << 20), Some(&b'a'), Some(&b'c'))
        );
    }
}
