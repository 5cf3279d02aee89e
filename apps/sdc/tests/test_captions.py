from sdc.demo.captions import COLOURS, SHAPES, every_caption, seen_captions, unseen_captions


def test_every_combination_once():
    captions = every_caption()
    assert len(set(captions)) == len(captions) == 8 * 4 * 7
    assert str(captions[0]) == "a red circle on a green background"
    assert all(caption.colour != caption.background for caption in captions)


def test_a_tenth_is_kept_out_of_training():
    assert len(unseen_captions()) == 22
    assert set(seen_captions()) | set(unseen_captions()) == set(every_caption())
    assert not set(seen_captions()) & set(unseen_captions())


def test_training_still_shows_every_word():
    seen = seen_captions()
    assert {caption.colour for caption in seen} == {caption.background for caption in seen} == set(COLOURS)
    assert {caption.shape for caption in seen} == set(SHAPES)
