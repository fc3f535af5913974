//! Listeners, TLS and upgraded streams shared by the front doors.
