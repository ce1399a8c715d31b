# As much of the libraries as there is.
import re

import torch


def find_word(tokenizer, sentence, word):
    match = re.search(r"(?<![\w])" + re.escape(word) + r"(?![\w])", sentence, re.I)
    if match is None:
        raise ValueError(word)
    encoding = tokenizer(sentence)
    places = {encoding.char_to_token(i) for i in range(match.start(), match.end())}
    return sorted(place for place in places if place is not None)


def baselines(train, test):
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score

    dummy = DummyClassifier(strategy="most_frequent").fit(train["text"], train["label"])
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    try:
        x = vectorizer.fit_transform(train["text"])
    except ValueError:
        return {"majority": dummy.score(test["text"], test["label"]), "tfidf": None}
    model = LogisticRegression(C=10, max_iter=1000).fit(x, train["label"])
    return {"majority": dummy.score(test["text"], test["label"]),
            "tfidf": accuracy_score(test["label"], model.predict(vectorizer.transform(test["text"])))}


def sense_similarity(vectors, senses):
    cosines = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1)
    codes = torch.tensor([sorted(set(senses)).index(sense) for sense in senses])
    same = codes[:, None] == codes
    off = same.clone().fill_diagonal_(False)
    return cosines[off].mean(), cosines[~same].mean()
