import torch

from dhdiff_ray.model.text import mark_defect_tokens, small_text_encoder, tokenize, word_tokenizer

PROMPTS = ["a photo of a bottle with broken large", "a photo of a bottle without defect", ""]


def test_defect_words_are_marked_where_the_prompt_names_them():
    tokenizer = word_tokenizer(" ".join(PROMPTS).split(), length=10)
    tokens = tokenize(tokenizer, PROMPTS)
    assert tokens.shape == (3, 10)
    marks = mark_defect_tokens(tokenizer, tokens, ["broken large", "", "broken large"])
    assert tokenizer.convert_ids_to_tokens(tokens[0][marks[0].bool()].tolist()) == ["broken", "large"]
    assert marks[1:].sum() == 0


def test_tokenizer_and_encoder_survive_saving(tmp_path):
    tokenizer = word_tokenizer(" ".join(PROMPTS).split(), length=10)
    encoder = small_text_encoder(tokenizer, width=16, layers=1).eval()
    tokenizer.save_pretrained(tmp_path / "t")
    encoder.save_pretrained(tmp_path / "e")
    again = type(tokenizer).from_pretrained(tmp_path / "t")
    tokens = tokenize(again, PROMPTS)
    assert torch.equal(tokens, tokenize(tokenizer, PROMPTS))
    encoder_again = type(encoder).from_pretrained(tmp_path / "e").eval()
    assert torch.equal(encoder_again(tokens).last_hidden_state, encoder(tokens).last_hidden_state)
