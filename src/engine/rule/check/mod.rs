//! What is wrong with a rule set, said to the person who wrote it.
