-- What was asked for under which idempotency key, and which book came of it. Without a foreign key: a request
-- stays answered when its book is deleted, or the table of books with it.
CREATE TABLE book_requests (
    key VARCHAR(255) PRIMARY KEY,
    requested_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    book_id INT NOT NULL,
    title VARCHAR(255) NOT NULL,
    author VARCHAR(255),
    publication_year INT,
    in_stock BOOLEAN NOT NULL
);
