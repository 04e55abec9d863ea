-- What a provider said of pictures that never came. It is in the provider's words, which may be about the prompt: it
-- is kept for as long as a repeat of the request may be told it, and then deleted. In `generations.answer`, where it
-- stood before, it would stay for good.
create table answer_words (
    generation_id text collate "C" primary key references generations on delete cascade,
    failed jsonb not null,
    created_at timestamptz not null
);
create index answer_words_by_age on answer_words (created_at);

update generations set answer = answer - 'failed' where answer ? 'failed';
