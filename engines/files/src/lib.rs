//! The engine that keeps locks in files of a shared directory.
