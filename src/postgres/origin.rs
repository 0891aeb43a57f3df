//! Who is behind this process. A role counts once it has logged in; before that the client's
//! address is all that is true. Asked by the log hook too: no lock, no allocation, no ERROR.
//! Unsafe: reads this process's own entry, and the start of PostgreSQL's record of the connection.

use crate::trail::Origin;
use pgrx::pg_sys;
use std::ffi::c_int;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

// SAFETY: PostgreSQL's own function and variable. The function only reads a variable.
unsafe extern "C" {
    safe fn GetOuterUserId() -> pg_sys::Oid;
    static MyProcPort: *const PortStart;
}

/// How PostgreSQL's `Port` begins, in versions 15 to 18 (libpq-be.h).
#[repr(C)]
struct PortStart {
    sock: c_int,
    noblock: bool,
    protocol: u32,
    local: pg_sys::SockAddr,
    remote: pg_sys::SockAddr,
}

/// Linux's numbers of families of addresses.
const IPV4: u16 = 2;
const IPV6: u16 = 10;

/// Who is behind this process now.
pub(crate) fn origin() -> Origin {
    // SAFETY: process-local variables. The entry lies in shared memory and is this process's own;
    // its role is zero until the authentication is over.
    unsafe {
        let entry = (&raw const pg_sys::MyProc).read_volatile();
        let session = if entry.is_null() { 0 } else { (*entry).roleId.to_u32() };
        if session != 0 {
            return Origin::Role { session, set: GetOuterUserId().to_u32() };
        }
        let port = (&raw const MyProcPort).read_volatile();
        if port.is_null() {
            return Origin::Process((&raw const pg_sys::MyBackendType).read_volatile());
        }
        let address = (&raw const (*port).remote.addr).cast::<[u8; 24]>();
        Origin::Client(ip(&address.read_unaligned()))
    }
}

/// The address in a `sockaddr_in` or `sockaddr_in6`: family, port, and for IPv6 the flow before it.
fn ip(bytes: &[u8; 24]) -> Option<IpAddr> {
    let family = u16::from_ne_bytes([bytes[0], bytes[1]]);
    let mut six = [0; 16];
    six.copy_from_slice(&bytes[8..]);
    match family {
        IPV4 => Some(Ipv4Addr::new(bytes[4], bytes[5], bytes[6], bytes[7]).into()),
        IPV6 => Some(Ipv6Addr::from(six).into()),
        _ => None,
    }
}

/// What PostgreSQL calls processes of this kind.
pub(crate) fn process_kind(number: u32) -> String {
    if number == 0 {
        return "postmaster".into();
    }
    // SAFETY: answers a constant for any number.
    let name = unsafe { pg_sys::GetBackendTypeDesc(number) };
    // SAFETY: a constant C string.
    unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_the_system_writes_it() {
        let mut four = [0; 24];
        four[..2].copy_from_slice(&IPV4.to_ne_bytes());
        four[2..8].copy_from_slice(&[0x15, 0x38, 192, 0, 2, 7]);
        assert_eq!(ip(&four), Some("192.0.2.7".parse().unwrap()));
        let mut six = [0; 24];
        six[..2].copy_from_slice(&IPV6.to_ne_bytes());
        six[8..].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(ip(&six), Some("2001:db8::7".parse().unwrap()));
        four[..2].copy_from_slice(&1u16.to_ne_bytes());
        assert_eq!(ip(&four), None, "a socket of this machine");
    }
}
