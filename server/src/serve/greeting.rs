//! What the server says when it is ready: where its doors are, and three lines to paste.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use anyhow::Result;
use serde_json::json;

use super::behind::Behind;
use crate::print;
use crate::settings::Settings;

/// Where the client looks if it is not told.
const USUAL: &str = "http://127.0.0.1:7070";

/// What there is to say.
pub struct Greeting<'a> {
    /// What the server runs with.
    pub settings: &'a Settings,
    /// Where the HTTP door listens.
    pub http: SocketAddr,
    /// What is behind the doors.
    pub behind: &'a Behind,
    /// Whether the HTTP and the RESP door, in this order, speak TLS.
    pub secure: (bool, bool),
    /// When the process began.
    pub began: Instant,
}

impl Greeting<'_> {
    /// Says it.
    pub fn print(&self, json: bool) -> Result<()> {
        let url = self.url();
        let ms = self.began.elapsed().as_millis();
        let data = self.behind.place(self.settings);
        tracing::info!(%url, data, ms, "ready");
        let (resp, gateway) = (self.resp(), self.behind.gateway_to());
        let key = if gateway.is_some() { "engine" } else { "data_dir" };
        let value = json!({ "ready": true, "http": url, "resp": resp, key: data, "ms": ms });
        print::either(json, &value, || self.text(&url, &data, ms))
    }

    /// An address that can be connected to from this machine.
    fn url(&self) -> String {
        let mut address = self.http;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let scheme = if self.secure.0 { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Where the RESP door is. Only behind TLS is there more to say than the address.
    fn resp(&self) -> Option<String> {
        let scheme = if self.secure.1 { "rediss://" } else { "" };
        self.behind.resp().map(|address| format!("{scheme}{address}"))
    }

    fn text(&self, url: &str, data: &str, ms: u128) -> String {
        let program = std::env::args_os().next().unwrap_or_else(|| "leasehold".into());
        let program = program.display();
        let on = if url == USUAL { String::new() } else { format!(" --on {url}") };
        let kind = if self.behind.gateway_to().is_some() { "engine" } else { "data  " };
        let resp = self.resp().map_or_else(String::new, |resp| format!("  RESP   {resp}\n"));
        format!(
            "leasehold {version}, ready after {ms} ms\n\
             \n\
             \x20 {kind} {data}\n\
             \x20 HTTP   {url}\n\
             {resp}\
             \n\
             Take a lock, send a message, get it:\n\
             \n\
             \x20 {program}{on} lock run nightly -- echo only one of us says this\n\
             \x20 curl {url}/v1/queues/orders/messages -d 'order 42'\n\
             \x20 {program}{on} queue work orders --max 1 -- cat\n",
            version = env!("CARGO_PKG_VERSION"),
        )
    }
}
