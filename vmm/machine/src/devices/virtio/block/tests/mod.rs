mod discard;
mod harness;
mod opening;
mod rate_limit;
mod read_write;
mod request_rules;
