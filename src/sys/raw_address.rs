//! Socket addresses and lengths in the form of C.

use std::net::SocketAddr;
use std::ptr;

/// `size_of::<T>()` as the kernel expects it.
pub fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// A socket address as the kernel and the C library expect it.
#[derive(Debug)]
pub enum RawAddress {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl RawAddress {
    pub fn new(address: &SocketAddr) -> RawAddress {
        match address {
            SocketAddr::V4(v4) => RawAddress::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => RawAddress::V6(libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            }),
        }
    }

    /// Valid while this value is not moved.
    pub fn pointer(&self) -> *const libc::sockaddr {
        match self {
            RawAddress::V4(v4) => ptr::from_ref(v4).cast(),
            RawAddress::V6(v6) => ptr::from_ref(v6).cast(),
        }
    }

    pub fn length(&self) -> libc::socklen_t {
        match self {
            RawAddress::V4(_) => socklen::<libc::sockaddr_in>(),
            RawAddress::V6(_) => socklen::<libc::sockaddr_in6>(),
        }
    }
}
