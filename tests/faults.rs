//! Everything that can go wrong at a stage.

mod folder;
