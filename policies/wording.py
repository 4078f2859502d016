"""Whether a reply that condemns a recipient says that and nothing else.

Knows the words of which such replies are made. A word that is none of them may be the reason why it is not so.
"""

import re
from collections.abc import Iterable
from typing import Final

from policies.rule import Rule
from policies.said import Heard

_VOCABULARY: Final = """
    abandoned abgeschaltet able aborted accept acceptable accepted accepting accepts access accessed account
    accountdisabledexception accounts action activated active activity actually address addressed addressee
    addresses admin administracyjnie administration administratively administrator adres adresa adresat adresse
    adressen adresu again agency ago aktywne alias aliases alici all allocated allowed already also an and
    angegebene angegebenen announces another anvandare any anybody anymore anything ao apologies apologize
    applications archived archivee are argument as assigned associated at attiva attivo au aucun aucune auf
    aufgeloest authorization automatically aux available avslutat away back bad be because been beendet bei bekannt
    bekend belong belonged belonging belongs benutzer best bestaat bilinmeyen bitte blank blocked bloque bloquee
    boite bounce bounced box bruger bruker brukeren bulunamadi but buzon by bye caixa called can canceled cancelled
    cannot cant case casella casilla ce cerrada ces cessata cessato cet cette characters check checked checking
    checks chez chiusa chkuser cimzett client closed closure code codes college company complete compruebe compte
    con configured confirm conta contact controleer controllare correct correctly correo corretto could couldnt
    courriel cuenta currently customer customers czytaj das data day days dd de deactivated deactivation deaktiviert
    dear deceased default defined definitely del deleted deletion deliver deliverable delivered deliveries delivery
    dem den denied departed department der des desactivada desactive desactivee desativada desativado desconhecida
    desconhecido desconocida desconocido deshabilitada deshabilitado desk destin destinat destinataire destinatar
    destinatario destination destinazione detail details deze di did didnt die died diese diesem dieser dieses
    different direccion directory disabilitata disabilitato disable disabled disattivata disattivato discontinued
    dit dns do does doesnt domain domaine domains dominio domino dormant dosnt double dr du due during ein eine
    einem einer el electronique eliminada eliminado email emailadresse empfaenger empfangsadresse employee empty en
    encontrada encontrado encontramos encontro ended endereco ensure enter entered entries entry equivocada errato
    erreichbar error errors escrita esiste esistente esmtp est esta este ever everybody exact exactly exist existant
    existe existed existen existent existente existerar existieren existiert existing exists expired explanation
    extended faculty fail failed failing failure fatal favor felhasznalo fen ferm ferme fermee final find findes
    finnes finns first for forever form format former formerly forwarding found free from frozen gebruiker
    gebruikersnaam gecersiz gefunden gel geloescht geschlossen gesperrt gevonden gli go gone goodbye got graduated
    gsmtp gueltige ha had handle has hasnt have he hello help her here herself hi hier him himself his hittades
    holder home homed host hosted hosting hosts id if ikke il illegal im imap in inactif inactiva inactivated
    inactive inactivity inaktiv inativa inattiva inbox incident incoming inconnu inconnue incorrect incorrecta
    incorreto indirizzo individual individuals inesistente inexistant inexistante inexistent inexistente info inform
    information institution inte intended intented internet introuvable invalid invalida invalide is isblocked
    ismeretlen isnt issue ist istnieje it its jest juiste just kein keine keinen known konta konto kontot
    kontrollera korisnik kullanici kunde kutusu la ladresse las last le learn least leave left les letezik letter
    letterbox letters lettres list listed lmtp lo local locate located locked logged long longer look lookup los lub
    ma mail mailaddress mailadresse mailbox mailboxes mailhost mailing mails make man manually many map mapped
    marked match matched matches matching mbox mehr member merci messagerie miss missing misspelled misspelling
    misspellings misspelt mister mistyped modtageren moins month months more mottagare mottagaren mottaker moved mr
    mrs ms mta much must mx my name names naming nao naszym ne necunoscut neexistuje neexistujici nem nepoznat
    nessun nessuno neste network never new nexiste neznamy nicht nie nieaktywne niepoprawny niet nieznana nieznany
    ningun ninguna no noactivity nobody nom nome non none nonexistent nonexisting nossa nosso nostri nostro
    nosuchuser not note nothing notice notre now nsmtp nuestra nuestro null nullmx number numbers nutzer obsolete
    odbiorca odbiorcy oder of off ok okand old on onbekend onbekende one online only onto ontvanger opgeheven or
    organisation organization orthographe os other ou our ours outdated output own owner page part parties party pas
    passed pelna people periods permanantly permanent permanently person persona placeholder please plus podane
    point pop poped por posta postal postbus postfach postmaster postoji postvak pr present presente prijemce
    problem problems provisioned pruefen query questa questo quit rcpt rcptto re reach read readdress really reason
    reasons receive received receives receiving recipient recipients recognised recognized record records redirect
    ref reference refuse refused refusing regards registered regret reject rejected rejecting relay removal remove
    removed replaced request requested resend resending resigned resilie resolve resolved response resubmit result
    results retired return returned returning rfc right routable route routed sa same scaduta school schranka
    schreibweise scht sconosciuta sconosciuto se second see sent serve served server servern servers serves serveur
    service services servidor serving serwer serwerze ses set settings setup sfr she should siamo sie simply since
    sind sistema sistemi site siteground skrzynka smtp so someone something son sont sorry sowie spaces spelled
    spelling spelt spiacenti st staff status still stillgelegt student students subscriber such support supprime
    supprimee sur sure suspend suspended switched syntax system systems table taken takes taki takie takiego te
    teilnehmer terminated termination than thank thanks that the their them then there these they this those time
    times titulaire to tried tries trovata trovati trovato try trying two typed typo typos ucet ukendt ukjent un
    unable unallocated unavailable unbekannt unbekannte unbekannten unbekannter und undeliverable undelivered une
    unfamiliar unfortunately ungueltig university unk unknown unkown unnecessary unreachable unrecognised
    unrecognized unresolvable unroutable unrouteable uns unser unsere unserem unused up usable use used useless user
    users usuaria usuario usuarios utente utilisateur utilisatrice utilizator uzivatel uzytkownik uzytkownika vacant
    vacated valable valid valida validate validated validation valide valido validrcptto van verificare verification
    verified verifier verifies verifique verify verifying very veuillez virtual visit vorhanden was we web were
    werent where which who whoever whom whose why wiecej will wish with without woman work working works worldnet
    would write wrong wrote wurde wurden year years yok you zablokowane znaleziono znaleziony zu zum zur
"""
"""Of replies that were meant so, in English and in other languages as far as they are written in ASCII."""
_WORDS: Final = frozenset(_VOCABULARY.split())
_SAYS_SO: Final = frozenset({"5.1.1", "5.1.6", "5.1.10"})
"""The recipient's address is what is wrong (RFC 3463 section 3.2; 5.1.10 is RFC 7505's)."""
_NAMES: Final = re.compile(r"[@/\\_=#<\[\d]|\w\.\w")
"""In what names somebody or something: an address, a host, an id, a code, a place on the web."""
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
_BEFORE_ALL: Final = re.compile(r"^[a-z-]{2,20}[:;] ")
"""The program or the class of error that some servers begin with."""
_BARE_NAME: Final = re.compile(
    r"(?:^|\b(?:user|users|mailbox|account|recipient|address|named|called|name|alias|rcpt)\b:? ?[\"(]?|: )([a-z]{2,})\b"
)
"""Where a server prints the name of a mailbox without its domain."""


def says_only_that(rule: Rule, heard: Heard) -> bool:
    """Whether each word of a reply is one that condemns a recipient, names him or says nothing.

    Where the status says so as well, its words may be any but those of `policies.matching` that cast a doubt.
    """
    if heard.enhanced in _SAYS_SO:
        return True
    text = _BEFORE_ALL.sub("", heard.text).replace("your mail", "mail").replace("check your", "check")
    text = " ".join([part for part in text.split() if not _NAMES.search(part)])
    strange = {word for word in _WORD.findall(text) if word.isascii()} - _WORDS
    if strange:
        strange -= _said(rule.any_of) | _said(rule.all_of) | _said(rule.examples)
    return not strange or (len(strange) == 1 and strange <= set(_BARE_NAME.findall(text)))


def _said(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _WORD.findall(text.lower())}
