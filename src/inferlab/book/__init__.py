"""The book's side: exercises that check themselves, and the reader's progress."""
