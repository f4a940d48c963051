import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.security.GeneralSecurityException;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.PKIXRevocationChecker.Option;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/**
 * Validates a path as Java's TLS does with revocation on: RFC 5280, each certificate below the trust anchor with the CRL
 * that it points to, and no OCSP.
 *
 * <p>{@code java -Dcom.sun.security.enableCRLDP=true CheckPath.java ANCHOR CHAIN}: two files in PEM; CHAIN begins with
 * the leaf and ends below the anchor. Prints "valid" or, with exit code 1, the reason.
 */
public final class CheckPath {
    private CheckPath() {}

    public static void main(String[] arguments) throws IOException, GeneralSecurityException {
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        X509Certificate anchor = (X509Certificate) read(factory, arguments[0]).get(0);
        List<Certificate> chain = read(factory, arguments[1]);
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        PKIXRevocationChecker revocation = (PKIXRevocationChecker) validator.getRevocationChecker();
        revocation.setOptions(EnumSet.of(Option.PREFER_CRLS, Option.NO_FALLBACK));
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(anchor, null)));
        parameters.addCertPathChecker(revocation);
        try {
            validator.validate(factory.generateCertPath(chain), parameters);
        } catch (CertPathValidatorException invalid) {
            System.out.printf("%s: certificate %d: %s%n", invalid.getReason(), invalid.getIndex(), invalid.getMessage());
            System.exit(1);
        }
        System.out.println("valid");
    }

    private static List<Certificate> read(CertificateFactory factory, String file)
            throws IOException, GeneralSecurityException {
        try (InputStream stream = new FileInputStream(file)) {
            return List.copyOf(factory.generateCertificates(stream));
        }
    }
}
