//! A run as a TOML file: the flags of `baton run` as top-level keys, and a `[[guest]]` table for
//! each guest.
//!
//! ```
//! let config = baton_config::file::parse(
//!     r#"
//!     host_cpus = "0-1"
//!     duration = "10s"
//!     until_guest = "db"
//!
//!     [[guest]]
//!     name = "db"
//!     cpus = 4
//!     memory = "64M"
//!     cmdline = "lock=ticket seconds=5"
//!     shared_reservation = "8ms/10ms"
//!
//!     [[guest]]
//!     name = "batch"
//!     count = 2
//!     weight = 50
//!     "#,
//!     std::path::Path::new("."),
//! )
//! .unwrap();
//! assert_eq!(config.guests.len(), 3);
//! assert_eq!(config.guests[0].reservations[3].unwrap().budget(), 2_000_000);
//! ```
//!
//! A Linux guest may have disks, network interfaces and vsock, written as for `--disk`, `--net` and
//! `--vsock`, also with their limits. Paths are relative to the file's directory.
//!
//! ```
//! let config = baton_config::file::parse(
//!     r#"
//!     [[guest]]
//!     kernel = "vmlinuz"
//!     memory = "512M"
//!     cmdline = "console=ttyS0 root=/dev/vda"
//!     disks = ["root.img,bandwidth=100M/s,ops=5000/s", "data.img,ro"]
//!     nets = ["tap=tap0,mac=52:54:00:12:34:56"]
//!     vsock = "cid=3,path=vm.sock"
//!     "#,
//!     std::path::Path::new("/guests"),
//! )
//! .unwrap();
//! let guest = &config.guests[0];
//! assert_eq!(guest.disks[0].path, std::path::Path::new("/guests/root.img"));
//! assert_eq!(guest.disks[0].limit.ops.unwrap().size, 5000);
//! assert!(guest.disks[1].read_only);
//! assert_eq!(guest.nets[0].tap, "tap0");
//! assert_eq!(guest.vsock.as_ref().unwrap().path, std::path::Path::new("/guests/vm.sock"));
//! ```

mod fields;
mod guest_table;
mod run_file;

pub use fields::{parse_defer, parse_shutdown_timeout};
pub use run_file::{parse, read};
