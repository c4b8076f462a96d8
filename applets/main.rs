//! One binary, many names: the name that it is called by picks the applet.
fn main() {}
