DROP TABLE book_requests;
