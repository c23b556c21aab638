//! Vocabulary of the tests: `Cluster`, `Tidegate`, `Client`.
