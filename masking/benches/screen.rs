//! Speed of the screen.
fn main() {}
