//! Which addresses our own requests may reach. Whoever can name an address for us to call (a webhook's URL, a name that resolves
//! anew at every call) must not reach what stands behind our firewall: this machine, its network, the cloud's metadata.
//!
//! The filter sits where the connection is made: [`Guard`] resolves a name, keeps what may be reached, and the connection goes to
//! what was kept, so that a name cannot say one thing to a check and another to the connection. Addresses written as literals never
//! reach a resolver; [`Guard::admits`] is asked for them before each request. Redirects are not followed at all.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// A range of addresses: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a network like `10.0.0.0/8` or `fd00::/8`, or one address".to_owned();
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), |prefix| prefix.parse::<u8>().map_err(|_| wrong()))?;
        if prefix > bits { Err(wrong()) } else { Ok(Network { address, prefix }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Network {
        Network { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(head: [u16; 4], prefix: u8) -> Network {
        let [a, b, c, d] = head;
        Network { address: IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), prefix }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same_head(u128::from(own.to_bits()), u128::from(other.to_bits()), 32, self.prefix),
            (IpAddr::V6(own), IpAddr::V6(other)) => same_head(own.to_bits(), other.to_bits(), 128, self.prefix),
            _ => false,
        }
    }
}

fn same_head(a: u128, b: u128, bits: u32, prefix: u8) -> bool {
    let shift = bits.saturating_sub(u32::from(prefix));
    a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
}

/// What is nobody's public address (the IANA registries of special purpose addresses).
const REFUSED: [Network; 26] = [
    Network::v4(0, 0, 0, 0, 8),       // "this network": Linux connects 0.0.0.0 to itself
    Network::v4(10, 0, 0, 0, 8),      // private
    Network::v4(100, 64, 0, 0, 10),   // behind a carrier's NAT
    Network::v4(127, 0, 0, 0, 8),     // this machine
    Network::v4(169, 254, 0, 0, 16),  // link-local: cloud metadata
    Network::v4(172, 16, 0, 0, 12),   // private
    Network::v4(192, 0, 0, 0, 24),    // protocol assignments
    Network::v4(192, 0, 2, 0, 24),    // documentation
    Network::v4(192, 31, 196, 0, 24), // AS112
    Network::v4(192, 52, 193, 0, 24), // AMT
    Network::v4(192, 88, 99, 0, 24),  // 6to4 relays
    Network::v4(192, 168, 0, 0, 16),  // private
    Network::v4(192, 175, 48, 0, 24), // AS112
    Network::v4(198, 18, 0, 0, 15),   // benchmarks
    Network::v4(198, 51, 100, 0, 24), // documentation
    Network::v4(203, 0, 113, 0, 24),  // documentation
    Network::v4(224, 0, 0, 0, 4),     // multicast
    Network::v4(240, 0, 0, 0, 4),     // class E, broadcast
    // only 2000::/3 is given out: this machine, v4 in IPv6 clothes, NAT64, private, link-local and multicast lie outside of it
    Network::v6([0, 0, 0, 0], 3),
    Network::v6([0x4000, 0, 0, 0], 2),
    Network::v6([0x8000, 0, 0, 0], 1),
    Network::v6([0x2001, 0, 0, 0], 23),         // protocol assignments, Teredo, ORCHID
    Network::v6([0x2001, 0xdb8, 0, 0], 32),     // documentation
    Network::v6([0x2002, 0, 0, 0], 16),         // 6to4
    Network::v6([0x2620, 0x4f, 0x8000, 0], 48), // AS112
    Network::v6([0x3fff, 0, 0, 0], 20),         // documentation
];

/// Decides, and resolves.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allowed: Arc<[Network]>,
}

/// Why an address is not called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("its address lies in a network that is not public; `allow_networks` lets it be reached")]
    Address,
    #[error("its name resolves to nothing but addresses that are not public; `allow_networks` lets them be reached")]
    Name,
    #[error("only https is called, or http within `allow_networks`")]
    Scheme,
    #[error("it has no host")]
    Host,
}

impl Guard {
    pub fn new(allowed: &[Network]) -> Guard {
        Guard { allowed: Arc::from(allowed) }
    }

    /// Whether a connection may be made to the address.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.allowed.iter().any(|network| network.contains(address)) || !REFUSED.iter().any(|network| network.contains(address))
    }

    /// Asked before each request: what no resolver will see. Plain http is for one's own networks, by address.
    ///
    /// # Errors
    /// The URL may not be called.
    pub fn admits(&self, url: &Url) -> Result<(), Refused> {
        let literal = match url.host().ok_or(Refused::Host)? {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        };
        match (url.scheme(), literal) {
            (_, Some(address)) if !self.permits(address) => Err(Refused::Address),
            ("https", _) => Ok(()),
            ("http", Some(address)) if self.allowed.iter().any(|network| network.contains(canonical(address))) => Ok(()),
            ("http", None) if !self.allowed.is_empty() => Ok(()), // its addresses are filtered as it resolves
            _ => Err(Refused::Scheme),
        }
    }
}

/// An IPv4 address in IPv6 clothes is judged as what it is.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let kept: Vec<SocketAddr> = found.into_iter().filter(|address| guard.permits(address.ip())).collect();
            if kept.is_empty() {
                return Err(Refused::Name.into());
            }
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every one of them leads to ourselves, to our neighbours, or nowhere.
    const NEVER: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.0",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.0.1.1",
        "127.255.255.254",
        "169.254.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.168.255.255",
        "192.175.48.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::169.254.169.254",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "100:0:0:1::1",
        "2001::1",
        "2001:0:4136:e378::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2620:4f:8000::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "8000::1",
        "fc00::1",
        "fd00:ec2::254",
        "fd12:3456:789a::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ];

    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "128.0.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "198.17.255.255",
        "198.20.0.1",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "2a00:1450:4001::1",
        "3ffe::1",
    ];

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap_or_else(|_| panic!("{text} is an address"))
    }

    #[test]
    fn what_is_not_public_is_refused() {
        assert!(NEVER.len() >= 60);
        let guard = Guard::default();
        for text in NEVER {
            assert!(!guard.permits(address(text)), "{text}");
            let host = if text.contains(':') { format!("[{text}]") } else { (*text).to_owned() };
            let url: Url = format!("https://{host}/hook").parse().expect("a URL");
            assert_eq!(guard.admits(&url), Err(Refused::Address), "{url}: a literal never meets a resolver");
        }
        for text in PUBLIC {
            assert!(guard.permits(address(text)), "{text}");
        }
    }

    #[test]
    fn other_spellings_of_an_address_are_the_same_address() {
        let guard = Guard::default();
        for host in ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.0.1.", "0x7f.1", "0", "[::ffff:7f00:1]", "%31%32%37.0.0.1"] {
            let url: Url = format!("https://{host}/").parse().unwrap_or_else(|_| panic!("{host} is a host"));
            assert_eq!(guard.admits(&url), Err(Refused::Address), "{host}");
        }
    }

    #[test]
    fn own_networks_may_be_let_in_and_plain_http_only_there() {
        let own = Guard::new(&["10.1.0.0/16".parse().expect("a network"), "::1".parse().expect("an address")]);
        assert!(own.permits(address("10.1.2.3")) && own.permits(address("::ffff:10.1.2.3")) && own.permits(address("::1")));
        assert!(!own.permits(address("10.2.0.1")) && !own.permits(address("::2")));
        let ask = |guard: &Guard, url: &str| guard.admits(&url.parse().expect("a URL"));
        assert_eq!(ask(&own, "http://10.1.2.3/"), Ok(()));
        assert_eq!(ask(&own, "http://8.8.8.8/"), Err(Refused::Scheme));
        assert_eq!(ask(&Guard::default(), "http://shop.example/"), Err(Refused::Scheme));
        assert_eq!(ask(&Guard::default(), "https://shop.example/"), Ok(()));
        assert_eq!(ask(&Guard::default(), "ftp://shop.example/"), Err(Refused::Scheme));
    }

    #[test]
    fn networks_are_read_and_what_is_none_is_told() {
        for text in ["10.0.0.0/8", "fd00::/8", "192.168.1.7", "0.0.0.0/0", "::/0"] {
            assert!(text.parse::<Network>().is_ok(), "{text}");
        }
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0", "10.0.0.0/x", "shop.example"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        let all: Network = "0.0.0.0/0".parse().expect("a network");
        assert!(all.contains(address("1.2.3.4")) && !all.contains(address("::1")));
    }
}
