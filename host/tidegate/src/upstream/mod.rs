//! Server connections: connect and log in, pool, hand out.

pub mod pool; // one worker's pools: leases, waiting, opening, closing
