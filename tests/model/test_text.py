import torch

from dhdiff_ray.model.text import mark_defect_tokens, small_text_encoder, tokenize, with_words, word_tokenizer

PROMPTS = ["a photo of a bottle with broken large", "a photo of a bottle without defect", ""]


def words_of(prompts=PROMPTS):
    return " ".join(prompts).split()


def made(prompts=PROMPTS, length=10):
    tokenizer = word_tokenizer(words_of(prompts), length=length)
    return tokenizer, small_text_encoder(tokenizer, width=16, layers=1)


def states(tokenizer, encoder, prompts):
    return encoder(tokenize(tokenizer, prompts)).last_hidden_state


def test_defect_words_are_marked_where_the_prompt_names_them():
    tokenizer = word_tokenizer(words_of(), length=20)
    tokens = tokenize(tokenizer, PROMPTS)
    assert tokens.shape == (3, 20)
    marks = mark_defect_tokens(tokenizer, tokens, ["broken large", "", "broken large"])
    assert tokenizer.convert_ids_to_tokens(tokens[0][marks[0].bool()].tolist()) == ["broken", "large"]
    assert marks[1:].sum() == 0


def test_tokenizer_and_encoder_survive_saving(tmp_path):
    tokenizer, encoder = made()
    tokenizer.save_pretrained(tmp_path / "t")
    encoder.save_pretrained(tmp_path / "e")
    again = type(tokenizer).from_pretrained(tmp_path / "t")
    assert torch.equal(tokenize(again, PROMPTS), tokenize(tokenizer, PROMPTS))
    encoder_again = type(encoder).from_pretrained(tmp_path / "e").eval()
    assert torch.equal(states(again, encoder_again, PROMPTS), states(tokenizer, encoder, PROMPTS))


def test_two_models_with_other_words_read_the_same_prompt_alike_whatever_was_drawn_before():
    torch.manual_seed(1)
    ours = made()
    torch.manual_seed(2)
    theirs = made([*PROMPTS, "a photo of a washer with scratched head"])
    assert len(ours[0]) != len(theirs[0])
    assert torch.equal(states(*ours, PROMPTS), states(*theirs, PROMPTS))


def test_making_an_encoder_draws_nothing_from_torch():
    torch.manual_seed(3)
    made()
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), after)


def test_new_words_and_longer_prompts_leave_old_ones_as_they_were():
    tokenizer, encoder = made()
    new = "a photo of a very old and very rusty and very large metal nut with a tiny scratch on it"
    wider, grown = with_words(tokenizer, encoder, words_of([new]), len(new.split()) + 2)
    assert "<unk>" not in wider.convert_ids_to_tokens(tokenize(wider, [new])[0].tolist())
    length = tokenizer.model_max_length
    assert torch.equal(states(wider, grown, PROMPTS)[:, :length], states(tokenizer, encoder, PROMPTS))
    same = made([*PROMPTS, new], len(new.split()) + 2)
    torch.testing.assert_close(states(wider, grown, [new]), states(*same, [new]))


def test_words_that_are_known_change_nothing():
    tokenizer, encoder = made()
    assert with_words(tokenizer, encoder, ["bottle"], 5) == (tokenizer, encoder)
