//! Plans applied to tables in memory, op by op: nothing is left to plan, and every lookup stays valid on the way.
//!
//! | module | what it holds to |
//! |---|---|
//! | `snapshots` | what is wanted: random, and two services by name |
//! | `checked` | tables in memory that look every frontend up after each write, and fail where told |
//! | `holds` | what tables have to hold when all is done |
//! | `writes` | order of writes, and writes that fail, one by one |
//! | `steps` | random snapshots, one after the other, also interrupted and onto damaged tables |
//! | `parts` | a few changed services, planned from their own rows alone |

mod checked;
mod holds;
mod parts;
mod snapshots;
mod steps;
mod writes;
