//! The sandbox: paints real pictures locally, without key or network.
